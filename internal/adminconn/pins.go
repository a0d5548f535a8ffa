package adminconn

import (
	"maps"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// lockTimeout is how long one of our statements waits for a lock.
const lockTimeout = "5s"

// pinned are the settings on which the meaning of our statements, or their success, depends.
// The owner of a database can set other values for its sessions (ALTER DATABASE … SET), and
// before PostgreSQL 16 a user with CREATEROLE can set them for the administrative login
// (ALTER ROLE … SET). A value in the start-up message overrides both and applies from the
// first statement on. A SET after the logon would come too late: a statement_timeout or
// transaction_timeout of a millisecond would end it, and a library to be loaded would already
// have failed the logon.
//
// Any user can set every setting here in every supported version. A setting that only
// superusers can set cannot be in the start-up message of a plain login. The owner of a
// database cannot set it either, unless a superuser has granted SET on it, which Check
// reports.
var pinned = map[string]string{
	"application_name": "daypass",

	// How statements and values are read and written.
	"client_encoding":             "UTF8",
	"search_path":                 "pg_catalog, pg_temp",
	"standard_conforming_strings": "on",
	"backslash_quote":             "safe_encoding",
	"transform_null_equals":       "off",
	"array_nulls":                 "on",
	"quote_all_identifiers":       "off",
	"bytea_output":                "hex",
	"datestyle":                   "ISO, MDY",
	"intervalstyle":               "postgres",
	"timezone":                    "UTC",
	"extra_float_digits":          "1",
	"check_function_bodies":       "on",
	"row_security":                "on",
	"client_min_messages":         "warning",
	"plpgsql.extra_errors":        "none",
	"plpgsql.extra_warnings":      "none",

	// How transactions behave, and how long they may take.
	"default_transaction_isolation":       "read committed",
	"default_transaction_read_only":       "off",
	"default_transaction_deferrable":      "off",
	"statement_timeout":                   "7s",
	"lock_timeout":                        lockTimeout,
	"idle_in_transaction_session_timeout": "15s",
	"exit_on_error":                       "off",
	"tcp_user_timeout":                    "0",

	// What is loaded, created and written to the server's log.
	"local_preload_libraries": "",
	"default_tablespace":      "",
	"temp_tablespaces":        "",
	"debug_print_parse":       "off",
	"debug_print_rewritten":   "off",
	"debug_print_plan":        "off",

	// Plans are the same for ten roles as for ten thousand, and so is the memory they use.
	// Server-wide tuning does not apply either: these few statements are written for these
	// values.
	"plan_cache_mode":                 "force_generic_plan",
	"enable_seqscan":                  "off",
	"enable_indexscan":                "on",
	"enable_indexonlyscan":            "on",
	"enable_bitmapscan":               "on",
	"enable_tidscan":                  "on",
	"enable_nestloop":                 "on",
	"enable_hashjoin":                 "on",
	"enable_mergejoin":                "on",
	"enable_hashagg":                  "on",
	"enable_sort":                     "on",
	"enable_incremental_sort":         "on",
	"enable_material":                 "on",
	"max_parallel_workers_per_gather": "0",
	"jit":                             "off",
	"seq_page_cost":                   "1",
	"random_page_cost":                "4",
	"cpu_tuple_cost":                  "0.01",
	"cpu_index_tuple_cost":            "0.005",
	"cpu_operator_cost":               "0.0025",
	"effective_cache_size":            "4GB",
	"cursor_tuple_fraction":           "0.1",
	"from_collapse_limit":             "8",
	"join_collapse_limit":             "8",
	"geqo":                            "on",
	"geqo_threshold":                  "12",
	"geqo_effort":                     "5",
	"geqo_pool_size":                  "0",
	"geqo_generations":                "0",
	"constraint_exclusion":            "partition",
	"work_mem":                        "4MB",
	"hash_mem_multiplier":             "2",
	"maintenance_work_mem":            "64MB",
	"temp_buffers":                    "8MB",
}

// pinnedSince are settings that older servers do not know and refuse, in the order of the
// versions.
var pinnedSince = []struct {
	major       int
	name, value string
}{
	{14, "idle_session_timeout", "0"},
	{14, "client_connection_check_interval", "0"},
	{14, "enable_memoize", "on"},
	{15, "recursive_worktable_factor", "10"},
	{16, "createrole_self_grant", ""}, // or the login would become a member of each role it creates
	{17, "transaction_timeout", "0"},
}

// newestMajor is the version that an unknown server is assumed to have: one that knows every
// setting.
const newestMajor = 99

// olderThan returns the version to assume next for a server that refused a setting of version
// major.
func olderThan(major int, refusal error) int {
	message := PlainError(refusal)
	older := pinnedSince[0].major - 1
	for _, p := range pinnedSince {
		if strings.Contains(message, `"`+p.name+`"`) {
			return min(p.major, major) - 1
		}
		if p.major <= major {
			older = p.major - 1
		}
	}
	return older
}

// roleOption matches a role that the options of a connection string name.
var roleOption = regexp.MustCompile(`(^|\s)(-c\s*|--)role=`)

// pin puts the settings into the start-up message of a connection to a server of a major
// version. It keeps a role in the connection string, which is the operator's choice, and
// overrides a role that is set for the database or the login (ALTER … SET role).
func pin(config *pgx.ConnConfig, major int) {
	named, chosen := config.RuntimeParams["role"]
	params := maps.Clone(pinned)
	for name, value := range config.RuntimeParams {
		// The server ignores the case of names, and uses the last of several.
		if _, ours := params[strings.ToLower(name)]; !ours {
			params[name] = value
		}
	}
	for _, p := range pinnedSince {
		if major >= p.major {
			params[p.name] = p.value
		}
	}
	switch {
	case chosen:
		params["role"] = named
	case !roleOption.MatchString(params["options"]):
		params["role"] = "none"
	}
	params["session_authorization"] = config.User
	config.RuntimeParams = params
}
