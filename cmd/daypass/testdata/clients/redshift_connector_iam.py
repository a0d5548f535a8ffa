# Logs on with redshift_connector, which asks the API for the credential itself.
import os
import redshift_connector

connection = redshift_connector.connect(
    iam=True,
    host=os.environ["PGHOST"],
    port=int(os.environ["PGPORT"]),
    database="dev",
    db_user="alice",
    cluster_identifier="examplecluster",
    region="us-east-1",
    endpoint_url=os.environ["AWS_ENDPOINT_URL"],
    sslmode="verify-full",
)
cursor = connection.cursor()
cursor.execute("SELECT current_user, session_user, %s::int + 1", (41,))
print(*cursor.fetchone())
