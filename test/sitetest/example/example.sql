CREATE ROLE daypass LOGIN CREATEROLE PASSWORD 'administrative secret';
CREATE GROUP analysts;
CREATE GROUP finance;
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE ROLE boss LOGIN SUPERUSER;
CREATE GROUP powers SUPERUSER;
ALTER ROLE alice SET work_mem = '7MB';
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 160000 THEN
    EXECUTE 'GRANT alice, bob, analysts, finance TO daypass WITH ADMIN OPTION, INHERIT FALSE, SET FALSE';
  END IF;
END
$$;
