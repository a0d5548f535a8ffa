# The calls of a session with boto3's default credential chain: a credential, the
# clusters, who is calling, and a presigned URL of the first.
import json
import boto3

redshift, sts = boto3.client("redshift"), boto3.client("sts")
arguments = dict(ClusterIdentifier="examplecluster", DbName="dev", DbUser="alice", DbGroups=["analysts"])
credential = redshift.get_cluster_credentials(**arguments)
cluster = redshift.describe_clusters()["Clusters"][0]
refused = None
try:
    redshift.get_cluster_credentials(**dict(arguments, DbUser="bob"))
except redshift.exceptions.ClientError as e:
    refused = e.response["Error"]["Code"]
print(json.dumps({
    "DbUser": credential["DbUser"],
    "DbPassword": credential["DbPassword"],
    "Expires": credential["Expiration"].isoformat(),
    "Cluster": cluster["ClusterIdentifier"],
    "Endpoint": "%s:%d" % (cluster["Endpoint"]["Address"], cluster["Endpoint"]["Port"]),
    "Arn": sts.get_caller_identity()["Arn"],
    "Refused": refused,
    "Presigned": redshift.generate_presigned_url("get_cluster_credentials", Params=arguments, HttpMethod="GET"),
}))
