// The same with the AWS SDK for JavaScript and its default credential chain.
const { RedshiftClient, GetClusterCredentialsCommand, DescribeClustersCommand } = require("@aws-sdk/client-redshift");
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");

async function main() {
  const redshift = new RedshiftClient(), sts = new STSClient();
  const input = { ClusterIdentifier: "examplecluster", DbName: "dev", DbUser: "alice", DbGroups: ["analysts"] };
  const credential = await redshift.send(new GetClusterCredentialsCommand(input));
  const cluster = (await redshift.send(new DescribeClustersCommand({}))).Clusters[0];
  let refused = null;
  try {
    await redshift.send(new GetClusterCredentialsCommand({ ...input, DbUser: "bob" }));
  } catch (e) {
    refused = e.name;
  }
  console.log(JSON.stringify({
    DbUser: credential.DbUser,
    DbPassword: credential.DbPassword,
    Expires: credential.Expiration.toISOString(),
    Cluster: cluster.ClusterIdentifier,
    Endpoint: `${cluster.Endpoint.Address}:${cluster.Endpoint.Port}`,
    Arn: (await sts.send(new GetCallerIdentityCommand({}))).Arn,
    Refused: refused,
  }));
}
main().catch((e) => {
  console.error(e);
  process.exitCode = 1;
});
