package awscli

import (
	"errors"
	"math"
	"slices"
	"strings"

	"golang.org/x/text/width"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// section is one titled box of a table: an optional row of headers and rows of
// cells. indent says how many frames are drawn around it.
type section struct {
	title   string
	indent  int
	headers []string
	rows    [][]string
	columns int // -1 before the first row
	widest  []int
}

func (s *section) addHeaders(headers []string) {
	s.widen(headers)
	if s.columns < 0 {
		s.columns = len(headers)
	}
	s.headers = headers
}

func (s *section) addRow(values []any) error {
	if s.columns < 0 {
		s.columns = len(values)
	}
	if len(values) != s.columns {
		return fail(awsconfig.ExitGeneral, "Row should have %d elements, instead it has %d", s.columns, len(values))
	}
	cells := make([]string, len(values))
	for i, value := range values {
		cells[i] = pyvalue.Str(value)
	}
	s.rows = append(s.rows, cells)
	s.widen(cells)
	return nil
}

func (s *section) widen(cells []string) {
	if len(s.widest) == 0 {
		s.widest = make([]int, len(cells))
	}
	for i, cell := range cells {
		s.widest[i] = max(s.widest[i], displayWidth(cell))
	}
}

// displayWidth returns the number of columns of a text on a terminal: two for wide
// characters, and for those whose width depends on the font.
func displayWidth(text string) int {
	n := 0
	for _, r := range text {
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth, width.EastAsianAmbiguous:
			n++
		}
		n++
	}
	return n
}

// cellPadding is the width of a column beyond its widest cell.
const cellPadding = 4

// width returns the width of the section with all its frames.
func (s *section) width() int {
	total := 2
	for _, w := range s.widest {
		total += w + cellPadding
	}
	return max(displayWidth(s.title)+2, total) + 2*s.indent
}

// columnWidths spreads the width of the table over the columns, in proportion.
func (s *section) columnWidths(total int) []int {
	sum := 0
	for _, w := range s.widest {
		sum += w + cellPadding
	}
	if sum == 0 {
		return nil
	}
	scale := float64(total) / float64(sum)
	widths := make([]int, len(s.widest))
	over := -total
	for i, w := range s.widest {
		widths[i] = int(math.RoundToEven(scale * float64(w+cellPadding)))
		over += widths[i]
	}
	for over != 0 {
		for i := range widths {
			if over > 0 {
				widths[i]--
				over--
			} else if over < 0 {
				widths[len(widths)-1-i]++
				over++
			}
		}
	}
	return widths
}

// vertical turns a section with one row into two columns, header and value.
func (s *section) vertical() *section {
	if len(s.rows) != 1 || len(s.headers) == 0 {
		return s
	}
	turned := &section{title: s.title, indent: s.indent, columns: -1}
	for i, header := range s.headers {
		if i < len(s.rows[0]) {
			_ = turned.addRow([]any{header, s.rows[0][i]}) // always two cells
		}
	}
	return turned
}

// tableBuilder makes sections of a value, as the AWS CLI does: an object is a section
// with its scalars as columns, followed by sections for nested values.
type tableBuilder struct{ sections []*section }

func (t *tableBuilder) current() *section { return t.sections[len(t.sections)-1] }

func (t *tableBuilder) open(title string, indent int) {
	t.sections = append(t.sections, &section{title: title, indent: indent, columns: -1})
}

func isNothing(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case *object:
		return v.Len() == 0
	}
	return pyvalue.Equal(v, pyvalue.Int(0))
}

// build adds the sections of a value, and reports whether there is anything to print.
// Without a title the rows belong to the current section.
func (t *tableBuilder) build(title *string, v any, indent int) (bool, error) {
	if isNothing(v) {
		return false, nil
	}
	if title != nil {
		t.open(*title, indent)
	}
	switch v := v.(type) {
	case *object:
		return true, t.object(v, indent)
	case []any:
		if _, ok := v[0].(*object); ok {
			return true, t.objects(v, indent, title)
		}
		for _, item := range v {
			if err := t.listItem(item); err != nil {
				return true, err
			}
		}
	}
	return true, nil
}

func (t *tableBuilder) listItem(item any) error {
	switch item := item.(type) {
	case []any:
		if !slices.ContainsFunc(item, func(v any) bool { return !isScalar(v) }) {
			return t.current().addRow(item)
		}
		_, err := t.build(nil, item, 0)
		return err
	case *object: // a row of its keys
		var keys []any
		for key := range item.All() {
			keys = append(keys, key)
		}
		return t.current().addRow(keys)
	}
	return t.current().addRow([]any{item})
}

func scalarAndOther(o *object) (scalars, others []string) {
	for key, value := range o.All() {
		if isScalar(value) {
			scalars = append(scalars, key)
		} else {
			others = append(others, key)
		}
	}
	slices.Sort(scalars)
	slices.Sort(others)
	return scalars, others
}

func (t *tableBuilder) object(o *object, indent int) error {
	headers, others := scalarAndOther(o)
	values := make([]any, len(headers))
	for i, header := range headers {
		values[i], _ = o.Get(header)
	}
	switch {
	case len(headers) == 1:
		values = []any{headers[0], values[0]}
	case len(headers) > 1:
		t.current().addHeaders(headers)
	}
	if len(headers) > 0 {
		if err := t.current().addRow(values); err != nil {
			return err
		}
	}
	for _, key := range others {
		value, _ := o.Get(key)
		if _, err := t.build(&key, value, indent+1); err != nil {
			return err
		}
	}
	return nil
}

func (t *tableBuilder) objects(list []any, indent int, title *string) error {
	headers, others := []string{}, []string{}
	for _, item := range list {
		o, ok := item.(*object)
		if !ok {
			return errors.New("a table cannot hold objects and other values in one list")
		}
		scalars, more := scalarAndOther(o)
		headers = append(headers, scalars...)
		others = append(others, more...)
	}
	slices.Sort(headers)
	headers = slices.Compact(headers)
	slices.Sort(others)
	others = slices.Compact(others)
	t.current().addHeaders(headers)
	for i, item := range list {
		if i > 0 && len(others) > 0 {
			name := ""
			if title != nil {
				name = *title
			}
			t.open(name, indent)
			t.current().addHeaders(headers)
		}
		o := item.(*object)
		values := make([]any, len(headers))
		for j, header := range headers {
			value, ok := o.Get(header)
			if !ok {
				value = ""
			}
			values[j] = value
		}
		if err := t.current().addRow(values); err != nil {
			return err
		}
		for _, key := range others {
			if value, ok := o.Get(key); ok {
				if _, err := t.build(&key, value, indent+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// defaultWidth is the width of a table that does not go to a terminal.
const defaultWidth = 80

// tableText draws a value as a table.
func tableText(title string, v any, colored bool, terminal int) (string, error) {
	var t tableBuilder
	some, err := t.build(&title, v, 0)
	if err != nil || !some {
		return "", err
	}
	if terminal <= 0 {
		terminal = defaultWidth
	}
	total := widestSection(t.sections)
	if total > terminal {
		for i, s := range t.sections {
			t.sections[i] = s.vertical()
		}
		total = widestSection(t.sections)
	}
	d := drawer{colored: colored}
	d.write(repeat("-", total) + "\n")
	for _, s := range t.sections {
		d.section(s, total-2*s.indent)
	}
	return d.b.String(), nil
}

func widestSection(sections []*section) int {
	widest := 0
	for _, s := range sections {
		widest = max(widest, s.width())
	}
	return widest
}

func repeat(s string, n int) string { return strings.Repeat(s, max(n, 0)) }

// drawer writes the lines of a table. Like the AWS CLI, it resets the terminal's
// colours after each piece that it writes.
type drawer struct {
	b       strings.Builder
	colored bool
}

const (
	colorCell  = "\x1b[1m\x1b[34m"
	colorFrame = "\x1b[2m\x1b[33m"
	colorReset = "\x1b[0m"
)

func (d *drawer) write(text string) {
	d.b.WriteString(text)
	if d.colored {
		d.b.WriteString(colorReset)
	}
}

func (d *drawer) style(color, text string) string {
	if !d.colored {
		return text
	}
	return color + text + colorReset
}

// line writes a line inside of the frames around a section.
func (d *drawer) line(s *section, text string) {
	frame := repeat(d.style(colorFrame, "|"), s.indent)
	d.write(frame)
	d.write(text)
	d.write(frame)
	d.write("\n")
}

func (d *drawer) section(s *section, total int) {
	if s.title != "" {
		d.line(s, center(s.title, total, "|"))
		if len(s.headers) == 0 && len(s.rows) == 0 {
			d.line(s, "+"+repeat("-", total-2)+"+")
		}
	}
	widths := s.columnWidths(total)
	if len(s.headers) > 0 {
		d.rule(s, widths)
		text := ""
		for i, header := range s.headers {
			text += center(header, widths[i], leftEdge(i))
		}
		d.line(s, text)
	}
	if len(s.rows) == 0 || len(widths) == 0 {
		return
	}
	d.rule(s, widths)
	for _, row := range s.rows {
		text := ""
		for i, cell := range row {
			text += d.cell(cell, widths[i], leftEdge(i))
		}
		d.line(s, text)
	}
	d.rule(s, widths)
}

// leftEdge is drawn by the first cell only; all draw the right one.
func leftEdge(column int) string {
	if column == 0 {
		return "|"
	}
	return ""
}

func (d *drawer) rule(s *section, widths []int) {
	text := ""
	for i, w := range widths {
		if i == 0 {
			text += "+" + repeat("-", w-2) + "+"
		} else {
			text += repeat("-", w-1) + "+"
		}
	}
	d.line(s, text)
}

func center(text string, total int, left string) string {
	length := displayWidth(text)
	before := total/2 - length/2 - 1
	after := total - 1 - (len(left) + before + length)
	return left + repeat(" ", before) + text + repeat(" ", after) + "|"
}

func (d *drawer) cell(text string, total int, left string) string {
	length := displayWidth(text)
	padding := 2
	if total < length+padding+len(left)+1 {
		padding = 0
	}
	after := total - (len(left) + padding + length) - 1
	return left + repeat(" ", padding) + d.style(colorCell, text) + repeat(" ", after) + "|"
}
