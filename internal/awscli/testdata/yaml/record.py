# Prints, for every line of values.jsonl, what PyYAML makes of it with the rules
# of YAML 1.2 for what is a string: the way version 2 of the AWS CLI prints it.
# Run by the tests with -update.
import json
import re
import sys

import yaml


class Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}


def add(tag, pattern, first):
    Dumper.add_implicit_resolver('tag:yaml.org,2002:' + tag, re.compile(pattern, re.X), first)


add('bool', r'^(?:true|True|TRUE|false|False|FALSE)$', list('tTfF'))
add('float', r'''^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$''', list('-+0123456789.'))
add('int', r'^(?:[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+)$', list('-+0123456789'))
add('merge', r'^(?:<<)$', ['<'])
add('null', r'^(?:~|null|Null|NULL|)$', ['~', 'n', 'N', ''])
add('timestamp', r'''^(?:[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]
    |[0-9][0-9][0-9][0-9]-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?
     :[0-9][0-9]:[0-9][0-9](?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9][0-9])?))?)$''', list('0123456789'))
add('value', r'^(?:=)$', ['='])

for line in open('values.jsonl', encoding='utf-8'):
    value = json.loads(line)
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=False, allow_unicode=True)
    print(json.dumps({'value': json.dumps(value), 'yaml': text}))
