package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	// maxAliased limits how much aliases may add to a file: the number of values and their
	// characters, counted again for each alias. Without a limit, ten lines of aliases of
	// aliases can stand for billions of values.
	maxAliased = 1 << 20
	// maxNested bounds how deep values nest, with aliases followed. A configuration needs
	// about twenty levels.
	maxNested = 100
)

// checkAliases reports whether the file can be read as a tree. The code after it follows
// aliases everywhere and has to terminate. It refuses aliases that contain themselves,
// aliases that make a small file huge, aliases as keys, and merge keys, which are not
// supported.
func (f *yamlFile) checkAliases(root *yaml.Node) bool {
	c := aliasChecker{file: f, anchors: map[*yaml.Node]extent{}}
	c.measure(root)
	return !c.failed
}

type aliasChecker struct {
	file    *yamlFile
	anchors map[*yaml.Node]extent // zero for a node that is being measured
	path    []string              // the keys and indexes that lead to the node
	aliased int
	failed  bool
}

// extent is the size of a node, with its aliases followed.
type extent struct{ size, depth int }

// fail ends the check, because one fault of this kind causes a thousand more.
func (c *aliasChecker) fail(node *yaml.Node, format string, args ...any) {
	if c.failed {
		return
	}
	c.failed = true
	key := strings.TrimPrefix(strings.Join(c.path, ""), ".")
	if key == "" {
		key = "the file"
	}
	c.file.errorf(node, key, format, args...)
}

func (c *aliasChecker) measure(node *yaml.Node) extent {
	e := extent{size: 1 + len(node.Value), depth: 1}
	switch {
	case c.failed:
		return e
	case node.Kind == yaml.AliasNode:
		return c.follow(node)
	case len(c.path) > maxNested:
		c.fail(node, "is nested more than %d deep", maxNested)
		return e
	}
	if node.Anchor != "" {
		c.anchors[node] = extent{}
	}
	for i, child := range node.Content {
		switch {
		case node.Kind == yaml.SequenceNode:
			e.add(c.step("["+strconv.Itoa(i)+"]", child))
		case node.Kind == yaml.MappingNode && i%2 == 0:
			e.add(c.key(child))
		case node.Kind == yaml.MappingNode:
			e.add(c.step("."+node.Content[i-1].Value, child))
		}
	}
	if node.Anchor != "" {
		c.anchors[node] = e
	}
	return e
}

func (e *extent) add(child extent) {
	e.size += child.size
	e.depth = max(e.depth, 1+child.depth)
}

func (c *aliasChecker) step(part string, child *yaml.Node) extent {
	c.path = append(c.path, part)
	e := c.measure(child)
	c.path = c.path[:len(c.path)-1]
	return e
}

func (c *aliasChecker) key(node *yaml.Node) extent {
	e := extent{size: 1 + len(node.Value), depth: 1}
	if node.Anchor != "" {
		c.anchors[node] = e
	}
	switch {
	case node.Kind != yaml.ScalarNode:
		c.fail(node, "has a key that is no text; keys have to be written out")
	case node.ShortTag() == "!!merge":
		c.fail(node, "has a merge key (<<), which is not supported; write the keys out")
	}
	return e
}

// follow measures the value that an alias refers to, which is above it in the file.
func (c *aliasChecker) follow(node *yaml.Node) extent {
	e := c.anchors[node.Alias]
	c.aliased += e.size
	switch {
	case e.size == 0:
		c.fail(node, "the alias *%s stands within what it stands for", node.Value)
	case len(c.path)+e.depth > maxNested:
		c.fail(node, "is nested more than %d deep", maxNested)
	case c.aliased > maxAliased:
		c.fail(node, "aliases make the file larger by more than %d characters; name a policy instead, or put users in a group", maxAliased)
	}
	return e
}
