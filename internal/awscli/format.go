package awscli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
	"github.com/daypass/daypass/internal/quote"
)

func (c *command) newClient(ctx context.Context) (*client, error) {
	s := awsconfig.Settings{
		Profile:        c.globals.profile,
		Region:         c.globals.region,
		EndpointURL:    c.globals.endpointURL,
		CABundle:       c.globals.caBundle,
		NoVerifySSL:    !c.globals.verifyTLS,
		NoSignRequest:  !c.globals.sign,
		ConnectTimeout: time.Duration(c.globals.connectTimeout) * time.Second,
		ReadTimeout:    time.Duration(c.globals.readTimeout) * time.Second,
		Getenv:         c.env.Getenv,
		MFACode:        c.env.MFACode,
	}
	if c.globals.debug {
		s.Debug = c.env.Stderr
	}
	if s.NoVerifySSL {
		fmt.Fprintln(c.env.Stderr, "warning: the certificate of the endpoint is not checked (--no-verify-ssl)")
	}
	client, err := newClient(ctx, s)
	if err == nil {
		c.found = &client.found
	}
	return client, err
}

// outputFormat returns the output format. It is called before the first request.
func (c *command) outputFormat(client *client) (string, error) {
	for _, form := range []string{c.globals.output, c.env.Getenv("AWS_DEFAULT_OUTPUT"), client.profile.Setting("output"), "json"} {
		if form == "" {
			continue
		}
		if !slices.Contains([]string{"json", "text", "table", "yaml", "yaml-stream", "off"}, form) {
			return "", fail(awsconfig.ExitGeneral, "Unknown output type: %s", form)
		}
		return form, nil
	}
	panic("internal error: awscli: no output format")
}

// print prints an answer.
func (c *command) print(ctx context.Context, op *operation, form string, answer response) error {
	switch form {
	case "text":
		return c.printText(ctx, answer)
	case "yaml-stream":
		return answer.raw(ctx, func(page *object) error {
			value, err := c.query(page)
			if err != nil || isEmpty(value) {
				return err
			}
			return c.write(yamlText([]any{value}))
		})
	case "off":
		return answer.raw(ctx, func(*object) error { return nil })
	}
	whole, err := answer.whole(ctx)
	if err != nil {
		return err
	}
	value, err := c.query(whole)
	if err != nil {
		return err
	}
	switch {
	case form == "table":
		if c.env.Width > 0 {
			value = terminalValue(value)
		}
		text, err := tableText(op.name, value, c.colored(), c.env.Width)
		if err != nil {
			return fail(awsconfig.ExitGeneral, "%v", err)
		}
		return c.writeExactly(text) // text has colours
	case isEmpty(value):
		return nil
	case form == "yaml":
		return c.write(yamlText(value))
	}
	return c.write(pyvalue.JSON(value, 4, false) + "\n")
}

func (c *command) colored() bool {
	return c.globals.color == "on" || c.globals.color != "off" && c.env.Width > 0 && c.env.Getenv("NO_COLOR") == ""
}

// query applies --query.
func (c *command) query(value *object) (any, error) {
	if c.globals.query == nil {
		return value, nil
	}
	result, err := c.globals.query.Search(value)
	if err != nil {
		return nil, fail(awsconfig.ExitGeneral, "%v", err)
	}
	return result, nil
}

// isEmpty reports whether a value is an object without members, for which nothing is printed.
func isEmpty(v any) bool {
	o, ok := v.(*object)
	return ok && o.Len() == 0
}

// terminalValue quotes the text in a value for a terminal.
func terminalValue(v any) any {
	switch v := v.(type) {
	case string:
		return quote.Terminal(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = terminalValue(v[i])
		}
		return list
	case *object:
		o := new(object)
		for key, value := range v.All() {
			o.Set(quote.Terminal(key), terminalValue(value))
		}
		return o
	}
	return v
}

// write writes text, quoted where it goes to a terminal.
func (c *command) write(text string) error {
	if c.env.Width > 0 {
		text = quote.TerminalText(text)
	}
	return c.writeExactly(text)
}

func (c *command) writeExactly(text string) error {
	if _, err := io.WriteString(c.env.Stdout, text); err != nil {
		return fail(awsconfig.ExitGeneral, "writing the answer: %v", err)
	}
	return nil
}

// printText prints each page as soon as it arrives. Pages before an error stay printed.
func (c *command) printText(ctx context.Context, answer response) error {
	return answer.each(ctx, func(page *object) error {
		value, err := c.query(page)
		if err != nil {
			return err
		}
		var t textPrinter
		formatErr := t.item(value, nil, nil)
		if err := c.write(t.b.String()); err != nil {
			return err
		}
		if formatErr != nil {
			return fail(awsconfig.ExitGeneral, "%v", formatErr)
		}
		return nil
	})
}

// textPrinter prints the text format: one line with the scalars, separated by tabs and
// sorted by key, then the nested values, each line beginning with its key in upper
// case.
type textPrinter struct{ b strings.Builder }

func isScalar(v any) bool {
	switch v.(type) {
	case []any, *object:
		return false
	}
	return true
}

// item prints a value below the key label. columns are the scalar keys that
// all objects of a list have between them; nil outside of such a list.
func (t *textPrinter) item(v any, label *string, columns []string) error {
	switch v := v.(type) {
	case *object:
		return t.object(v, label, columns)
	case []any:
		return t.list(v, label)
	}
	t.line(pyvalue.Str(v))
	return nil
}

func (t *textPrinter) line(fields ...string) {
	t.b.WriteString(strings.Join(fields, "\t"))
	t.b.WriteByte('\n')
}

func upper(label string) string {
	return cases.Upper(language.Und).String(label)
}

func (t *textPrinter) list(list []any, label *string) error {
	objects := slices.ContainsFunc(list, func(v any) bool { _, ok := v.(*object); return ok })
	if objects {
		columns, err := scalarKeys(list)
		if err != nil {
			return err
		}
		for _, element := range list {
			if err := t.item(element, label, columns); err != nil {
				return err
			}
		}
		return nil
	}
	var scalars []string
	for _, element := range list {
		if isScalar(element) {
			scalars = append(scalars, pyvalue.Str(element))
		}
	}
	switch {
	case len(scalars) > 0 && label == nil:
		t.line(scalars...)
	case len(scalars) > 0:
		for _, scalar := range scalars {
			t.line(upper(*label), scalar)
		}
	}
	for _, element := range list {
		if isScalar(element) {
			continue
		}
		if err := t.item(element, label, nil); err != nil {
			return err
		}
	}
	return nil
}

// scalarKeys returns the sorted keys that are scalar in any of the objects. A list that
// mixes objects and other values cannot be printed.
func scalarKeys(list []any) ([]string, error) {
	keys := []string{}
	for _, element := range list {
		o, ok := element.(*object)
		if !ok {
			return nil, fmt.Errorf("'%s' object has no attribute 'items'", pyvalue.TypeName(element))
		}
		for key, value := range o.All() {
			if isScalar(value) && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (t *textPrinter) object(o *object, label *string, columns []string) error {
	var fields []string
	var rest []string
	keys := slices.Sorted(slices.Values(o.Keys()))
	if columns == nil {
		for _, key := range keys {
			if value, _ := o.Get(key); isScalar(value) {
				fields = append(fields, pyvalue.Str(value))
			} else {
				rest = append(rest, key)
			}
		}
	} else {
		for _, key := range columns {
			value, ok := o.Get(key)
			if !ok {
				value = ""
			}
			fields = append(fields, pyvalue.Str(value))
		}
		for _, key := range keys {
			if !slices.Contains(columns, key) {
				rest = append(rest, key)
			}
		}
	}
	if len(fields) > 0 {
		if label != nil {
			fields = slices.Insert(fields, 0, upper(*label))
		}
		t.line(fields...)
	}
	for _, key := range rest {
		value, _ := o.Get(key)
		if err := t.item(value, &key, nil); err != nil {
			return err
		}
	}
	return nil
}
