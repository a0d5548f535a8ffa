package dbuser

const (
	privateSchema = "daypass_private"
	eventTrigger  = "daypass_hand_over"
)

// triggerQuery reports whether the database has the event trigger of earlier
// builds, which handed objects over while the session that made them was still
// working with them. By its name alone: dropping it gives nobody anything.
const triggerQuery = `select exists (select from pg_event_trigger where evtname = '` + eventTrigger + `')`

// removeTrigger are the statements that remove the event trigger. They name
// nothing that a holder of a credential could have put in its place to gain by
// it: a schema with other objects in it stays.
func removeTrigger() []string {
	return []string{
		"drop event trigger if exists " + eventTrigger,
		"drop function if exists " + privateSchema + ".hand_over()",
		"drop schema if exists " + privateSchema,
	}
}
