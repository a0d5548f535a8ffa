package clustercheck

const (
	privateSchema = "daypass_private"
	eventTrigger  = "daypass_hand_over"
)

// triggerQuery reports whether the database has the event trigger of earlier
// builds, which handed objects over while the session that made them was still
// working with them, and whether a role that is not a superuser owns its function or the
// function's schema. It looks only at the trigger's name, because dropping a trigger of
// someone else's gives no one a right.
const triggerQuery = `
select count(*) > 0, coalesce(bool_or(not fo.rolsuper or not no.rolsuper), false)
from pg_event_trigger t join pg_proc p on p.oid = t.evtfoid join pg_roles fo on fo.oid = p.proowner
join pg_namespace n on n.oid = p.pronamespace join pg_roles no on no.oid = n.nspowner
where t.evtname = '` + eventTrigger + `'`

// removeTrigger returns the statements that remove the event trigger. A holder gains
// nothing by creating objects with the names in them: the statements only drop, and a
// schema with other objects in it stays.
func removeTrigger() []string {
	return []string{
		"drop event trigger if exists " + eventTrigger,
		"drop function if exists " + privateSchema + ".hand_over()",
		"drop schema if exists " + privateSchema,
	}
}
