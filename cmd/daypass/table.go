package main

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/daypass/daypass/internal/quote"
)

// table is text in columns. The first row has the names of the columns. Cells are quoted, so
// that no cell can break the layout.
type table struct {
	rows [][]string
	gap  int // between columns; 0 means 2
}

func (t *table) add(cells ...string) {
	row := make([]string, len(cells))
	for i := range cells {
		row[i] = quote.Terminal(cells[i])
	}
	t.rows = append(t.rows, row)
}

// fits reports whether the table is no wider than the terminal. If columns is 0, there is no
// terminal and every table fits.
func (t *table) fits(columns int) bool {
	width := 0
	for _, w := range t.widths() {
		width += w + t.space()
	}
	return columns == 0 || width-t.space() <= columns
}

func (t *table) space() int {
	if t.gap == 0 {
		return 2
	}
	return t.gap
}

func (t *table) widths() []int {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// write prints the table. If the terminal is too narrow, it prints each row as several lines,
// each with the name of the column and the cell.
func (t *table) write(w io.Writer, columns int) error {
	var b strings.Builder
	if t.fits(columns) {
		widths := t.widths()
		for _, row := range t.rows {
			for i, cell := range row {
				b.WriteString(cell)
				if i < len(row)-1 {
					b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+t.space()))
				}
			}
			b.WriteByte('\n')
		}
	} else {
		names := 0
		for _, name := range t.rows[0] {
			names = max(names, utf8.RuneCountInString(name))
		}
		for i, row := range t.rows[1:] {
			if i > 0 {
				b.WriteByte('\n')
			}
			for j, cell := range row {
				name := t.rows[0][j]
				b.WriteString(hang(name+strings.Repeat(" ", names-utf8.RuneCountInString(name)+t.space()), cell, columns) + "\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
