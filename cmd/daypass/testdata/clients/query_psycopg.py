# The same with psycopg 3, which binds the parameter at the server.
import os
import psycopg

with psycopg.connect(dbname=os.environ["PGDATABASE"]) as connection:
    print(*connection.execute("SELECT current_user, session_user, %s::int + 1", (41,)).fetchone())
