# Prints, for every line of expressions.txt, what the jmespath package of
# Python answers: the value as JSON, or the kind of the error and its text.
# Run by the tests with -update.
import json
import sys

import jmespath

with open('documents.json', encoding='utf-8') as f:
    documents = json.load(f)
document = None
with open('expressions.txt', encoding='utf-8') as f:
    text = f.read()
# A raw string that holds a line break is the one expression of two lines.
for line in text.replace("'new\nline'", "'new\0line'").split('\n'):
    line = line.replace('\0', '\n')
    if line.startswith('# document: '):
        document = line[len('# document: '):]
        continue
    if line == '':
        continue
    row = {'document': document, 'expression': line}
    try:
        compiled = jmespath.compile(line)
    except Exception as e:
        row['syntax'] = str(e)
    else:
        try:
            result = compiled.search(documents[document])
            row['result'] = json.dumps(result, default=lambda v: '<expression>')
            row['text'] = '' if '_Expression' in str(result) else str(result)
        except Exception as e:
            row['error'] = str(e)
    print(json.dumps(row))
