resource "aws_dynamodb_table" "conversations" {
  name = "chats"
  hash_key = "pk"
  range_key = "sk"
  billing_mode = "PROVISIONED"
  read_capacity = 5
  write_capacity = 6
  deletion_protection_enabled = true

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  ttl {
    attribute_name = "ttl"
    enabled = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
    kms_key_arn = "alias/chats"
  }

  tags = {
    "team" = "chat"
    "note" = "$${not} %%{one}"
  }
}
