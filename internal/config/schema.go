package config

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Schema returns the JSON Schema (draft 2020-12) of the configuration file, for editors. It
// describes the form of each key. Only the server checks rules that depend on other keys or on
// files.
func Schema() []byte {
	root := object(fileKeys)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Daypass configuration"
	root["$defs"] = policySchemas()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		panic("internal error: the schema has no JSON form: " + err.Error())
	}
	return out.Bytes()
}

type schema map[string]any

// object returns the schema of a mapping that has the keys of a table and no others.
func object(table []key) schema {
	properties, required := schema{}, []string{}
	groups := map[string][]string{}
	var order []string
	for i := range table {
		k := &table[i]
		properties[k.name] = k.schema()
		switch {
		case k.oneOf != "":
			if groups[k.oneOf] == nil {
				order = append(order, k.oneOf)
			}
			groups[k.oneOf] = append(groups[k.oneOf], k.name)
		case k.required:
			required = append(required, k.name)
		}
	}
	o := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		o["required"] = required
	}
	var all []schema
	for _, group := range order {
		var one []schema
		for _, name := range groups[group] {
			one = append(one, schema{"required": []string{name}})
		}
		if !requires(table, group) {
			one = append(one, schema{"not": schema{"anyOf": one[:len(one):len(one)]}})
		}
		all = append(all, schema{"oneOf": one})
	}
	if len(all) > 0 {
		o["allOf"] = all
	}
	return o
}

// requires reports whether a key of the group has to be given.
func requires(table []key, group string) bool {
	for i := range table {
		if table[i].oneOf == group && table[i].required {
			return true
		}
	}
	return false
}

// schema returns the schema of a key's value.
func (k *key) schema() schema {
	s := k.form()
	s["description"] = k.describe()
	if k.absent != "" {
		s["default"] = k.absent
		switch k.value {
		case integer:
			n, _ := strconv.Atoi(k.absent)
			s["default"] = n
		case boolean:
			s["default"] = k.absent == "true"
		}
	}
	return s
}

func (k *key) form() schema {
	nonempty := schema{"type": "string", "minLength": 1}
	list := func(items schema) schema {
		s := schema{"type": "array", "items": items}
		if !k.none {
			s["minItems"] = 1
		}
		return s
	}
	mappingOf := func(s schema) schema {
		if !k.none {
			s["minProperties"] = 1
		}
		return s
	}
	switch k.value {
	case boolean:
		return schema{"type": "boolean"}
	case integer:
		return schema{"type": "integer", "minimum": k.least, "maximum": k.most}
	case seconds:
		return schema{"anyOf": []schema{
			{"type": "integer", "minimum": k.least, "maximum": k.most},
			{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`},
		}}
	case texts:
		return list(nonempty)
	case policies:
		return list(schema{"$ref": "#/$defs/policy"})
	case policy:
		return schema{"$ref": "#/$defs/policy"}
	case tags:
		return schema{"type": "object", "maxProperties": 50, "additionalProperties": schema{"type": []string{"string", "number", "boolean"}}}
	case mapping:
		return mappingOf(object(k.keys))
	case mappings:
		return list(object(k.keys))
	}
	if k.pattern != nil {
		nonempty["pattern"] = k.pattern.String()
	}
	return nonempty
}

// describe returns the description of a key that an editor shows.
func (k *key) describe() string {
	text := k.doc
	if k.unset != "" {
		text += " Left out: " + k.unset + "."
	}
	return text + " A change takes effect: " + k.change.describe() + "."
}

// describe describes how a changed key is put in force.
func (c change) describe() string {
	switch c {
	case live:
		return "at once"
	case reconnect:
		return "at once, with new administrative connections"
	default:
		return "after a restart"
	}
}

// policySchemas returns the schemas of policy documents, as far as a schema can describe
// them.
func policySchemas() schema {
	strings := schema{"anyOf": []schema{{"type": "string"}, {"type": "array", "items": schema{"type": "string"}}}}
	principal := schema{"anyOf": []schema{{"type": "string"}, {"type": "object", "minProperties": 1, "additionalProperties": strings}}}
	value := schema{"type": []string{"string", "number", "boolean"}}
	statement := schema{"type": "object", "required": []string{"Effect"}, "additionalProperties": false, "properties": schema{
		"Sid": schema{"type": "string"}, "Effect": schema{"enum": []string{"Allow", "Deny"}},
		"Principal": principal, "NotPrincipal": principal,
		"Action": strings, "NotAction": strings, "Resource": strings, "NotResource": strings,
		"Condition": schema{"type": "object", "additionalProperties": schema{"type": "object",
			"additionalProperties": schema{"anyOf": []any{value, schema{"type": "array", "items": value}}}}},
	}}
	return schema{
		"statement": statement,
		"policy": schema{"anyOf": []schema{
			{"type": "string", "minLength": 1, "description": "The path of a .json file, or a policy document as JSON text."},
			{"type": "object", "required": []string{"Statement"}, "additionalProperties": false, "properties": schema{
				"Version": schema{"enum": []string{"2012-10-17", "2008-10-17"}}, "Id": schema{"type": "string"},
				"Statement": schema{"anyOf": []schema{{"$ref": "#/$defs/statement"}, {"type": "array", "items": schema{"$ref": "#/$defs/statement"}}}},
			}},
		}},
	}
}
