# Logs on with psycopg2 and runs a parameterised query. The PG* variables say
# where and as whom.
import os
import psycopg2

connection = psycopg2.connect(dbname=os.environ["PGDATABASE"])
cursor = connection.cursor()
cursor.execute("SELECT current_user, session_user, %s + 1", (41,))
print(*cursor.fetchone())
