# IAM policies for Daypass from a list of people and groups. Terraform's built-in
# provider is all that it needs:
#
#	terraform init && terraform apply
#	(cat base.yaml && terraform output -raw configuration) > daypass.yaml      # base.yaml: all sections but iam
#	terraform output -json policies | jq '.analysts' > analysts.json           # or a file for each policy
#
# daypass config check and daypass policy lint read the result, and daypass explain --config says what it
# allows.
terraform {
  required_version = ">= 1.4"
}

variable "account" {
  type    = string
  default = "123456789012"
}

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "cluster" {
  type    = string
  default = "examplecluster"
}

variable "database" {
  type    = string
  default = "dev"
}

# Who may join which groups. Everyone may log on as the database user of their name.
variable "people" {
  type = map(list(string))
  default = {
    ana = ["analysts"]
    bob = ["analysts", "finance"]
  }
}

# The access key of each person who has one. Its secret is in the file secrets/NAME beside
# daypass.yaml, which Terraform never reads: it would be in the state.
variable "access_keys" {
  type = map(string)
  default = {
    ana = "AKIAIOSFODNN7EXAMPLE"
  }
}

locals {
  arn    = "arn:aws:redshift:${var.region}:${var.account}"
  groups = toset(flatten(values(var.people)))

  people_policy = {
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "LogOnAsOneself"
        Effect = "Allow"
        Action = "redshift:GetClusterCredentials"
        Resource = [
          "${local.arn}:dbuser:${var.cluster}/$${aws:username}",
          "${local.arn}:dbname:${var.cluster}/${var.database}",
        ]
        Condition = { StringEquals = { "redshift:DbName" = var.database } }
      },
      {
        Sid      = "BeMade"
        Effect   = "Allow"
        Action   = "redshift:CreateClusterUser"
        Resource = "${local.arn}:dbuser:${var.cluster}/$${aws:username}"
      },
      {
        Sid      = "FindTheGateway"
        Effect   = "Allow"
        Action   = "redshift:DescribeClusters"
        Resource = "${local.arn}:cluster:${var.cluster}"
      },
    ]
  }

  group_policies = {
    for group in local.groups : group => {
      Version = "2012-10-17"
      Statement = [{
        Sid      = "Join"
        Effect   = "Allow"
        Action   = "redshift:JoinGroup"
        Resource = "${local.arn}:dbgroup:${var.cluster}/${group}"
      }]
    }
  }
}

output "policies" {
  description = "The policy of each IAM group, by name."
  value       = merge({ people = local.people_policy }, local.group_policies)
}

output "configuration" {
  description = "The iam section of the configuration. Its value is JSON, which is YAML."
  value = "iam: ${jsonencode({
    groups = concat(
      [{ name = "people", policies = [local.people_policy] }],
      [for group, policy in local.group_policies : { name = group, policies = [policy] }],
    )
    users = [for name, groups in var.people : {
      name        = name
      groups      = concat(["people"], groups)
      access_keys = [for owner, id in var.access_keys : { id = id, secret_file = "secrets/${name}" } if owner == name]
    }]
  })}\n"
}
