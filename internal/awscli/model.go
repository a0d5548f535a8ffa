package awscli

// kind is the type of a shape in the service's model.
type kind int

const (
	kindString kind = iota
	kindInteger
	kindDouble
	kindBoolean
	kindTimestamp
	kindList
	kindStructure
)

// shape describes a value of the API. The tables below are the Amazon Redshift
// API of 2012-12-01, as far as our operations need it: the names, their order
// and their types.
type shape struct {
	name    string // of the shape itself; skeletons show it in lists
	kind    kind
	members []member // of a structure
	element *shape   // of a list
	tag     string   // of a list's elements in requests
}

type member struct {
	name     string
	shape    *shape
	required bool
}

func (s *shape) member(name string) *member {
	for i := range s.members {
		if s.members[i].name == name {
			return &s.members[i]
		}
	}
	return nil
}

func (s *shape) memberNames() []string {
	names := make([]string, len(s.members))
	for i, m := range s.members {
		names[i] = m.name
	}
	return names
}

// operation is one action of the API.
type operation struct {
	name    string
	cliName string
	input   *shape
	output  *shape
	// paginated is set if the operation returns a list in pages.
	paginated *pagination
	help      operationText
}

// pagination names the members that page through a list.
type pagination struct {
	token, limit, result string
}

const apiVersion = "2012-12-01"

// The model is made of functions, so that no operation shares a table that
// another could change.

func operations() []*operation {
	return []*operation{describeClusters(), getClusterCredentials(), getClusterCredentialsWithIAM()}
}

func operationByCLIName(name string) *operation {
	for _, op := range operations() {
		if op.cliName == name {
			return op
		}
	}
	return nil
}

func subcommands() []string {
	var names []string
	for _, op := range operations() {
		names = append(names, op.cliName)
	}
	return append(names, "help")
}

func stringShape() *shape    { return &shape{name: "String", kind: kindString} }
func integerShape() *shape   { return &shape{name: "Integer", kind: kindInteger} }
func doubleShape() *shape    { return &shape{name: "Double", kind: kindDouble} }
func booleanShape() *shape   { return &shape{name: "Boolean", kind: kindBoolean} }
func timestampShape() *shape { return &shape{name: "TStamp", kind: kindTimestamp} }

func listOf(element *shape, tag string) *shape {
	return &shape{kind: kindList, element: element, tag: tag}
}

func structure(name string, members ...member) *shape {
	return &shape{name: name, kind: kindStructure, members: members}
}

func str(name string) member       { return member{name: name, shape: stringShape()} }
func number(name string) member    { return member{name: name, shape: integerShape()} }
func fraction(name string) member  { return member{name: name, shape: doubleShape()} }
func boolean(name string) member   { return member{name: name, shape: booleanShape()} }
func timestamp(name string) member { return member{name: name, shape: timestampShape()} }

func list(name, tag string, element *shape) member {
	return member{name: name, shape: listOf(element, tag)}
}

func nested(name string, s *shape) member { return member{name: name, shape: s} }

func required(m member) member { m.required = true; return m }

func getClusterCredentials() *operation {
	return &operation{
		name:    "GetClusterCredentials",
		cliName: "get-cluster-credentials",
		input: structure("GetClusterCredentialsMessage",
			required(str("DbUser")),
			str("DbName"),
			str("ClusterIdentifier"),
			number("DurationSeconds"),
			boolean("AutoCreate"),
			list("DbGroups", "DbGroup", stringShape()),
			str("CustomDomainName"),
		),
		output: structure("ClusterCredentials",
			str("DbUser"),
			str("DbPassword"),
			timestamp("Expiration"),
		),
		help: getClusterCredentialsText(),
	}
}

func getClusterCredentialsWithIAM() *operation {
	return &operation{
		name:    "GetClusterCredentialsWithIAM",
		cliName: "get-cluster-credentials-with-iam",
		input: structure("GetClusterCredentialsWithIAMMessage",
			str("DbName"),
			str("ClusterIdentifier"),
			number("DurationSeconds"),
			str("CustomDomainName"),
		),
		output: structure("ClusterExtendedCredentials",
			str("DbUser"),
			str("DbPassword"),
			timestamp("Expiration"),
			timestamp("NextRefreshTime"),
		),
		help: getClusterCredentialsWithIAMText(),
	}
}

func describeClusters() *operation {
	return &operation{
		name:    "DescribeClusters",
		cliName: "describe-clusters",
		input: structure("DescribeClustersMessage",
			str("ClusterIdentifier"),
			number("MaxRecords"),
			str("Marker"),
			list("TagKeys", "TagKey", stringShape()),
			list("TagValues", "TagValue", stringShape()),
		),
		output: structure("ClustersMessage",
			str("Marker"),
			list("Clusters", "Cluster", clusterShape()),
		),
		paginated: &pagination{token: "Marker", limit: "MaxRecords", result: "Clusters"},
		help:      describeClustersText(),
	}
}

func clusterShape() *shape {
	return structure("Cluster",
		str("ClusterIdentifier"),
		str("NodeType"),
		str("ClusterStatus"),
		str("ClusterAvailabilityStatus"),
		str("ModifyStatus"),
		str("MasterUsername"),
		str("DBName"),
		nested("Endpoint", structure("Endpoint",
			str("Address"),
			number("Port"),
			list("VpcEndpoints", "VpcEndpoint", structure("VpcEndpoint",
				str("VpcEndpointId"),
				str("VpcId"),
				list("NetworkInterfaces", "NetworkInterface", structure("NetworkInterface",
					str("NetworkInterfaceId"),
					str("SubnetId"),
					str("PrivateIpAddress"),
					str("AvailabilityZone"),
					str("Ipv6Address"),
				)),
			)),
		)),
		timestamp("ClusterCreateTime"),
		number("AutomatedSnapshotRetentionPeriod"),
		number("ManualSnapshotRetentionPeriod"),
		list("ClusterSecurityGroups", "ClusterSecurityGroup", structure("ClusterSecurityGroupMembership",
			str("ClusterSecurityGroupName"),
			str("Status"),
		)),
		list("VpcSecurityGroups", "VpcSecurityGroup", structure("VpcSecurityGroupMembership",
			str("VpcSecurityGroupId"),
			str("Status"),
		)),
		list("ClusterParameterGroups", "ClusterParameterGroup", structure("ClusterParameterGroupStatus",
			str("ParameterGroupName"),
			str("ParameterApplyStatus"),
			list("ClusterParameterStatusList", "member", structure("ClusterParameterStatus",
				str("ParameterName"),
				str("ParameterApplyStatus"),
				str("ParameterApplyErrorDescription"),
			)),
		)),
		str("ClusterSubnetGroupName"),
		str("VpcId"),
		str("AvailabilityZone"),
		str("PreferredMaintenanceWindow"),
		nested("PendingModifiedValues", structure("PendingModifiedValues",
			str("MasterUserPassword"),
			str("NodeType"),
			number("NumberOfNodes"),
			str("ClusterType"),
			str("ClusterVersion"),
			number("AutomatedSnapshotRetentionPeriod"),
			str("ClusterIdentifier"),
			boolean("PubliclyAccessible"),
			boolean("EnhancedVpcRouting"),
			str("MaintenanceTrackName"),
			str("EncryptionType"),
		)),
		str("ClusterVersion"),
		boolean("AllowVersionUpgrade"),
		number("NumberOfNodes"),
		boolean("PubliclyAccessible"),
		boolean("Encrypted"),
		nested("RestoreStatus", structure("RestoreStatus",
			str("Status"),
			fraction("CurrentRestoreRateInMegaBytesPerSecond"),
			number("SnapshotSizeInMegaBytes"),
			number("ProgressInMegaBytes"),
			number("ElapsedTimeInSeconds"),
			number("EstimatedTimeToCompletionInSeconds"),
		)),
		nested("DataTransferProgress", structure("DataTransferProgress",
			str("Status"),
			fraction("CurrentRateInMegaBytesPerSecond"),
			number("TotalDataInMegaBytes"),
			number("DataTransferredInMegaBytes"),
			number("EstimatedTimeToCompletionInSeconds"),
			number("ElapsedTimeInSeconds"),
		)),
		nested("HsmStatus", structure("HsmStatus",
			str("HsmClientCertificateIdentifier"),
			str("HsmConfigurationIdentifier"),
			str("Status"),
		)),
		nested("ClusterSnapshotCopyStatus", structure("ClusterSnapshotCopyStatus",
			str("DestinationRegion"),
			number("RetentionPeriod"),
			number("ManualSnapshotRetentionPeriod"),
			str("SnapshotCopyGrantName"),
		)),
		str("ClusterPublicKey"),
		list("ClusterNodes", "member", clusterNodeShape()),
		nested("ElasticIpStatus", structure("ElasticIpStatus",
			str("ElasticIp"),
			str("Status"),
		)),
		str("ClusterRevisionNumber"),
		list("Tags", "Tag", structure("Tag",
			str("Key"),
			str("Value"),
		)),
		str("KmsKeyId"),
		boolean("EnhancedVpcRouting"),
		list("IamRoles", "ClusterIamRole", structure("ClusterIamRole",
			str("IamRoleArn"),
			str("ApplyStatus"),
		)),
		list("PendingActions", "member", stringShape()),
		str("MaintenanceTrackName"),
		str("ElasticResizeNumberOfNodeOptions"),
		list("DeferredMaintenanceWindows", "DeferredMaintenanceWindow", structure("DeferredMaintenanceWindow",
			str("DeferMaintenanceIdentifier"),
			timestamp("DeferMaintenanceStartTime"),
			timestamp("DeferMaintenanceEndTime"),
		)),
		str("SnapshotScheduleIdentifier"),
		str("SnapshotScheduleState"),
		timestamp("ExpectedNextSnapshotScheduleTime"),
		str("ExpectedNextSnapshotScheduleTimeStatus"),
		timestamp("NextMaintenanceWindowStartTime"),
		nested("ResizeInfo", structure("ResizeInfo",
			str("ResizeType"),
			boolean("AllowCancelResize"),
		)),
		str("AvailabilityZoneRelocationStatus"),
		str("ClusterNamespaceArn"),
		number("TotalStorageCapacityInMegaBytes"),
		nested("AquaConfiguration", structure("AquaConfiguration",
			str("AquaStatus"),
			str("AquaConfigurationStatus"),
		)),
		str("DefaultIamRoleArn"),
		nested("ReservedNodeExchangeStatus", structure("ReservedNodeExchangeStatus",
			str("ReservedNodeExchangeRequestId"),
			str("Status"),
			timestamp("RequestTime"),
			str("SourceReservedNodeId"),
			str("SourceReservedNodeType"),
			number("SourceReservedNodeCount"),
			str("TargetReservedNodeOfferingId"),
			str("TargetReservedNodeType"),
			number("TargetReservedNodeCount"),
		)),
		str("CustomDomainName"),
		str("CustomDomainCertificateArn"),
		timestamp("CustomDomainCertificateExpiryDate"),
		str("MasterPasswordSecretArn"),
		str("MasterPasswordSecretKmsKeyId"),
		str("IpAddressType"),
		str("MultiAZ"),
		nested("MultiAZSecondary", structure("SecondaryClusterInfo",
			str("AvailabilityZone"),
			list("ClusterNodes", "member", clusterNodeShape()),
		)),
		str("LakehouseRegistrationStatus"),
		str("CatalogArn"),
		str("ExtraComputeForAutomaticOptimization"),
	)
}

func clusterNodeShape() *shape {
	return structure("ClusterNode",
		str("NodeRole"),
		str("PrivateIPAddress"),
		str("PublicIPAddress"),
	)
}
