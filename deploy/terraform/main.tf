# IAM policies for Daypass from a list of people and groups. Terraform's built-in
# provider is all that it needs:
#
#	terraform init && terraform apply
#	terraform output -raw configuration > iam.json      # as the iam section of the configuration
#	terraform output -json policies | jq '.analysts' > analysts.json
#
# daypass policy lint reads the result, and daypass explain --config says what it allows.
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
  description = "The iam section of the configuration, as JSON, which is YAML. Access keys are read from secrets/NAME."
  value = jsonencode({
    iam = {
      groups = concat(
        [{ name = "people", policies = [local.people_policy] }],
        [for group, policy in local.group_policies : { name = group, policies = [policy] }],
      )
      users = [for name, groups in var.people : { name = name, groups = concat(["people"], groups) }]
    }
  })
}
