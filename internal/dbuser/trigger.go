package dbuser

import (
	"context"
	"errors"
	"time"
)

const (
	privateSchema = "daypass_private"
	eventTrigger  = "daypass_hand_over"
	// triggerAgain is how long an installed trigger is taken for granted.
	triggerAgain = 10 * time.Minute
)

// handOverBody is the event trigger's function. It runs with the rights of its
// owner, a superuser, inside the holder's own transaction; so it resolves no
// name through the holder's search_path, puts no text of the holder's into
// a statement but the two role names, quoted, and changes nothing but the owner
// of what the session role owns. A failure is logged and left to the end
// of the session: the holder's statement has done nothing wrong.
const handOverBody = `
declare
  me oid;
  owner text;
begin
  -- Every session role's name begins like this; the marker is the proof.
  if tg_tag = 'REASSIGN OWNED' or left(session_user::text, 3) <> 'IAM' then
    return;
  end if;
  select r.oid into me from pg_roles r
  where r.rolname = session_user and exists (
    select from pg_auth_members m join pg_roles k on k.oid = m.roleid
    where m.member = r.oid and k.rolname = '` + MarkerRole + `');
  if me is null or not exists (
    select from pg_shdepend s
    where s.refclassid = 'pg_authid'::regclass and s.refobjid = me and s.deptype = 'o'
      and s.classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
      and s.dbid = (select d.oid from pg_database d where d.datname = current_database()))
    or exists (select from pg_event_trigger_ddl_commands() c where c.in_extension) then
    return;
  end if;
  select min(u.rolname::text) into owner
  from pg_auth_members m join pg_roles u on u.oid = m.roleid
  where m.member = me and u.rolcanlogin having count(distinct u.oid) = 1;
  if owner is not null then
    execute format('reassign owned by %I to %I', session_user, owner);
  end if;
exception when others then
  raise log 'daypass: handing over to the user: %', sqlerrm;
end`

// installTrigger are the statements that install the event trigger in the
// database they run in; a superuser has to run them.
func installTrigger() []string {
	return []string{
		"create schema if not exists " + privateSchema,
		"revoke all on schema " + privateSchema + " from public",
		"create or replace function " + privateSchema + ".hand_over() returns event_trigger language plpgsql security definer" +
			" set search_path = pg_catalog, pg_temp set lock_timeout = '250ms' as $daypass$" + handOverBody + "$daypass$",
		"revoke all on function " + privateSchema + ".hand_over() from public",
		"drop event trigger if exists " + eventTrigger,
		"create event trigger " + eventTrigger + " on ddl_command_end execute function " + privateSchema + ".hand_over()",
	}
}

// triggerQuery reports whether the trigger is there as we install it, and who
// owns the schema: another user's schema must not be built on, since its owner
// could put another function in the place of ours.
var triggerQuery = `
select coalesce((select o.rolsuper from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = '` + privateSchema + `'), true)
   and coalesce((select bool_and(o.rolsuper) from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        join pg_roles o on o.oid = p.proowner where n.nspname = '` + privateSchema + `'), true),
  exists (select from pg_event_trigger t join pg_proc p on p.oid = t.evtfoid join pg_namespace n on n.oid = p.pronamespace
    where t.evtname = '` + eventTrigger + `' and t.evtevent = 'ddl_command_end' and t.evtenabled in ('O', 'A') and t.evttags is null
      and n.nspname = '` + privateSchema + `' and p.proname = 'hand_over' and p.prosecdef 
      and regexp_replace(p.prosrc, '\s', '', 'g') = regexp_replace($daypass$` + handOverBody + `$daypass$, '\s', '', 'g'))`

var errSchemaTaken = errors.New("schema " + privateSchema + " belongs to another user")

// wantTrigger has the trigger installed, behind the logon, in a database that a
// session is about to use. Only a superuser may make one; where the
// administrative login is none, the end of the session does its work.
func (a *Admin) wantTrigger(database string, st *state) {
	if !st.Admin.Super || database == "" || st.Recovery {
		return
	}
	now := a.cfg.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.installed[database].After(now) || len(a.installed) > maxEnded {
		return
	}
	a.installed[database] = now.Add(triggerAgain)
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		ctx, cancel := context.WithTimeout(a.base, endedFor)
		defer cancel()
		if err := a.installIn(ctx, database); err != nil && !isCode(err, "3D000") {
			a.cfg.Log.Warn("event trigger not installed; objects are handed over when sessions end",
				"cluster", a.cfg.Cluster, "database", database, "err", err)
		}
	}()
}

func (a *Admin) installIn(ctx context.Context, database string) error {
	return a.inDatabase(ctx, database, func(ctx context.Context, _, c *conn) error {
		var ours, there bool
		if err := c.QueryRow(ctx, triggerQuery).Scan(&ours, &there); err != nil {
			return err
		}
		switch {
		case !ours:
			return errSchemaTaken
		case there:
			return nil
		}
		var steps []step
		for _, sql := range installTrigger() {
			steps = append(steps, step{sql: sql})
		}
		return a.runSteps(ctx, c, steps)
	})
}
