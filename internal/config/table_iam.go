package config

// iamKeys are the keys of the iam section. A section comes after those that it refers to:
// groups and users name policies, users name groups.
var iamKeys = []key{
	{name: "policies", value: mappings, change: live, none: true,
		doc: "Policies that users, groups and IAM roles attach by name.",
		keys: []key{
			nameKey,
			{name: "document", value: policy, required: true, change: live, doc: policyDoc("The document")},
		}},
	{name: "groups", value: mappings, change: live, none: true,
		doc:  "IAM groups: policies that their users share.",
		keys: join([]key{nameKey}, grantKeys)},
	{name: "users", value: mappings, change: live, none: true,
		doc: "IAM users.",
		keys: join([]key{
			nameKey, pathKey,
			{name: "access_keys", value: mappings, change: live, none: true, keys: accessKeyKeys,
				doc: "Long-term access keys."},
			{name: "mfa_devices", value: mappings, change: live, none: true, keys: deviceKeys,
				doc: "Virtual MFA devices that show time-based one-time passwords (RFC 6238)."},
			{name: "groups", value: texts, change: live, none: true,
				doc: "Names of `iam.groups` that the user is in."},
			tagsKey,
		}, grantKeys, []key{boundaryKey})},
	{name: "roles", value: mappings, change: live, none: true,
		doc: "IAM roles, which callers assume.",
		keys: join([]key{
			nameKey, pathKey,
			{name: "trust_policy", value: policy, required: true, change: live, doc: policyDoc("Who may assume the role")},
			{name: "max_session_duration", value: seconds, absent: "1h", least: inSeconds(leastSession), most: inSeconds(mostSession), change: live,
				doc: "How long a session of the role lasts at most."},
			tagsKey,
		}, grantKeys, []key{boundaryKey})},
	{name: "oidc_providers", value: mappings, change: live, none: true, keys: providerKeys,
		doc: "OpenID Connect identity providers, whose tokens can be exchanged for sessions of IAM roles."},
}

var (
	nameKey = key{name: "name", value: text, required: true, change: live, pattern: iamNamePattern,
		want: "1 to 64 letters, digits or characters of _+=,.@-",
		doc:  "The name. Unique, without regard to case."}
	pathKey = key{name: "path", value: text, absent: "/", change: live, pattern: iamPathPattern, want: "/ or /something/",
		doc: "The path in the ARN."}
	tagsKey = key{name: "tags", value: tags, change: live, none: true,
		doc: "Tags of the principal: `aws:PrincipalTag/NAME` in policies."}
	boundaryKey = key{name: "permissions_boundary", value: policy, change: live, unset: "no boundary",
		doc: policyDoc("The most that the policies can give")}
)

// grantKeys are the keys that grant rights to a user, a group or an IAM role.
var grantKeys = []key{
	{name: "policies", value: policies, change: live, none: true,
		doc: "Inline policies: documents written out as YAML or JSON, or paths of `.json` files."},
	{name: "attached_policies", value: texts, change: live, none: true,
		doc: "Names of `iam.policies`."},
}

func policyDoc(what string) string {
	return what + ": a policy document written out as YAML or JSON, or the path of a `.json` file."
}

var accessKeyKeys = join([]key{
	{name: "id", value: text, required: true, change: live, pattern: accessKeyPattern,
		want: "16 to 128 letters, digits or underscores, such as AKIAIOSFODNN7EXAMPLE",
		doc:  "The access key id. Unique; it does not begin with `ASIA`."},
}, secretKeys("secret", "The secret access key", "For development.", true, live))

var deviceKeys = join([]key{
	{name: "serial_number", value: text, change: live, pattern: serialPattern, unset: "`arn:aws:iam::ACCOUNT:mfa/USER`",
		want: "9 to 256 letters, digits or characters of _+=/:,.@-",
		doc:  "The serial number that callers name the device by. Unique."},
}, secretKeys("seed", "The device's key in base32", "For development.", true, live))

var providerKeys = []key{
	{name: "issuer", value: text, required: true, change: live,
		doc: "The issuer's URL, `iss` of the tokens: `https` without query (`http` on loopback only). Discovery starts here."},
	{name: "audiences", value: texts, required: true, change: live,
		doc: "The values that `aud` of the tokens may have, and `azp` where they have it."},
	{name: "jwks_file", value: path, regular: true, change: live, unset: "discovery",
		doc: "A file with the provider's keys, a JWK set, in place of discovery."},
	{name: "ca_file", value: path, regular: true, change: live, unset: "the system's authorities alone",
		doc: "A PEM file: authorities that are trusted for discovery, beside the system's."},
}
