package awscli

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/daypass/daypass/internal/awscli/pyvalue"
	"github.com/daypass/daypass/internal/awsconfig"
)

// response is printed by a command: the answer of one call, or the pages of a list.
type response interface {
	// whole returns everything as one object.
	whole(ctx context.Context) (*object, error)
	// each calls print for each page.
	each(ctx context.Context, print func(*object) error) error
	// raw calls print for each answer of the service.
	raw(ctx context.Context, print func(*object) error) error
}

// single is the answer of one call.
type single struct{ value *object }

func (s *single) whole(context.Context) (*object, error) { return s.value, nil }

func (s *single) each(_ context.Context, print func(*object) error) error { return print(s.value) }

func (s *single) raw(_ context.Context, print func(*object) error) error { return print(s.value) }

func callOnce(ctx context.Context, op *operation, client *client, params *object) (response, error) {
	value, err := client.call(ctx, op, params)
	if err != nil {
		return nil, err
	}
	return &single{value}, nil
}

// pagination reports whether to read a list page by page: not if the user refused that,
// and not if the user pages by hand.
func (c *command) pagination(op *operation, parsed arguments) (bool, error) {
	if op.paginated == nil {
		return false, nil
	}
	paginate := c.globals.paginate && !parsed.has(optionName(op.paginated.token)) && !parsed.has(optionName(op.paginated.limit))
	var used []string
	for _, name := range []string{"starting-token", "page-size", "max-items"} {
		text := parsed.text(name)
		if n, ok := pyvalue.ParseInt(text); text != "" && (!ok || name == "starting-token" || n.Sign() != 0) {
			used = append(used, "--"+name)
		}
	}
	if n, ok := pyvalue.ParseInt(parsed.text("max-items")); ok && n.Sign() <= 0 && (paginate || len(used) == 0) {
		fmt.Fprintln(c.env.Stderr, "warning: Non-positive values for --max-items may result in undefined behavior.")
	}
	if !paginate && len(used) > 0 {
		return false, fail(awsconfig.ExitGeneral, "Error during pagination: Cannot specify --no-paginate along with pagination arguments: %s", strings.Join(used, ", "))
	}
	return paginate, nil
}

// pages reads a list page by page. If --max-items cuts it off, the token to resume
// encodes the page and how many of its items were printed; it equals the AWS CLI's.
type pages struct {
	op      *operation
	client  *client
	params  *object
	start   any // the service's own token to begin with, nil for the beginning
	skip    int // how many items of the first page were printed before
	resumed bool
	size    *big.Int // of a page, nil for the service's default
	most    *big.Int // nil for all
	resume  string   // the token to resume with, if the list was cut off
}

func newPages(op *operation, client *client, params *object, p paging) (*pages, error) {
	it := &pages{op: op, client: client, params: params, size: p.pageSize, most: p.maxItems}
	if p.startingToken != nil {
		if err := it.startAt(*p.startingToken); err != nil {
			return nil, err
		}
	}
	return it, nil
}

const truncateKey = "boto_truncate_amount"

// startAt parses a token: ours, one in the old form (TOKEN___N), or the service's.
func (p *pages) startAt(token string) error {
	p.resumed = true
	data, err := base64.StdEncoding.DecodeString(token)
	if err == nil {
		if value, err := pyvalue.ParseJSON(string(data)); err == nil {
			if o, ok := value.(*object); ok {
				return p.startAtObject(token, o)
			}
		}
	}
	parts := strings.Split(token, "___")
	if len(parts) == 2 {
		if n, ok := pyvalue.ParseInt(parts[1]); ok && n.IsInt64() {
			parts, p.skip = parts[:1], int(n.Int64())
		} else {
			parts = []string{token}
		}
	}
	if len(parts) > 1 {
		return fail(awsconfig.ExitUsage, "Bad starting token: %s", token)
	}
	if parts[0] != "None" {
		p.start = parts[0]
	}
	return nil
}

func (p *pages) startAtObject(token string, o *object) error {
	for key, value := range o.All() {
		n, isNumber := value.(*big.Int)
		switch {
		case key == p.op.paginated.token:
			p.start = value
		case key == truncateKey && isNumber && n.IsInt64():
			p.skip = int(n.Int64())
		default:
			return fail(awsconfig.ExitUsage, "Bad starting token: %s", token)
		}
	}
	return nil
}

// items calls visit for each page with the items to print, which are nil if the page
// has no list.
func (p *pages) items(ctx context.Context, visit func(page *object, items []any) error) error {
	names := p.op.paginated
	token, previous := p.start, any(nil)
	if p.resumed {
		p.setToken(token)
	}
	if p.size != nil {
		p.params.Set(names.limit, p.size)
	}
	total := 0
	for first := true; ; first = false {
		page, err := p.client.call(ctx, p.op, p.params)
		if err != nil {
			return err
		}
		value, _ := page.Get(names.result)
		list, _ := value.([]any)
		skipped := 0
		if first && p.resumed {
			skipped = p.skip
			list = list[cut(skipped, len(list)):]
		}
		if p.most != nil {
			if over := new(big.Int).Sub(big.NewInt(int64(total+len(list))), p.most); over.Sign() > 0 {
				keep := len(list) - int(min(over.Int64(), int64(2*len(list)+1)))
				p.setResume(token, pyvalue.Int(int64(keep+skipped)))
				return visit(page, list[:cut(keep, len(list))])
			}
		}
		if err := visit(page, list); err != nil {
			return err
		}
		total += len(list)
		token, _ = page.Get(names.token)
		if token == nil || token == "" {
			return nil
		}
		if p.most != nil && p.most.IsInt64() && p.most.Int64() == int64(total) {
			p.setResume(token, nil)
			return nil
		}
		if token == previous {
			return fail(awsconfig.ExitGeneral, "Error during pagination: The same next token was received twice: {'%s': %s}", names.token, pyvalue.Repr(token))
		}
		p.setToken(token)
		previous = token
	}
}

// cut turns a slice index n, as in Python, into one from 0 to length. A negative n counts from
// the end.
func cut(n, length int) int {
	if n < 0 {
		n += length
	}
	return min(max(n, 0), length)
}

func (p *pages) setToken(token any) {
	if token == nil || token == "None" {
		p.params.Delete(p.op.paginated.token)
	} else {
		p.params.Set(p.op.paginated.token, token)
	}
}

func (p *pages) setResume(token, printed any) {
	o := new(object)
	o.Set(p.op.paginated.token, token)
	if printed != nil {
		o.Set(truncateKey, printed)
	}
	p.resume = base64.StdEncoding.EncodeToString([]byte(pyvalue.JSON(o, 0, true)))
}

func (p *pages) whole(ctx context.Context) (*object, error) {
	var all []any
	err := p.items(ctx, func(_ *object, items []any) error {
		if all == nil {
			all = slices.Clone(items)
		} else {
			all = append(all, items...)
		}
		return nil
	})
	o := new(object)
	if all != nil {
		o.Set(p.op.paginated.result, all)
	}
	if p.resume != "" {
		o.Set("NextToken", p.resume)
	}
	return o, err
}

func (p *pages) each(ctx context.Context, print func(*object) error) error {
	err := p.items(ctx, func(_ *object, items []any) error {
		o := new(object)
		if items == nil {
			o.Set(p.op.paginated.result, nil)
		} else {
			o.Set(p.op.paginated.result, items)
		}
		return print(o)
	})
	if err != nil || p.resume == "" {
		return err
	}
	inner, outer := new(object), new(object)
	inner.Set("NextToken", p.resume)
	outer.Set("NextToken", inner)
	return print(outer)
}

func (p *pages) raw(ctx context.Context, print func(*object) error) error {
	return p.items(ctx, func(page *object, items []any) error {
		if items != nil {
			page.Set(p.op.paginated.result, items)
		}
		return print(page)
	})
}
