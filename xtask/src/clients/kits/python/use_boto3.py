"""boto3, which signs each request's fields and body: what is altered on its way would not be believed."""

import boto3
from botocore.config import Config

session = boto3.session.Session(aws_access_key_id="AKIAFAKE", aws_secret_access_key="fake", region_name="us-east-1")
config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0})
client = session.client("s3", endpoint_url="https://open.example", config=config)
answer = client.put_object(Bucket="bytes", Key="0", Body=b"body" * 1000, Metadata={"Mixed": "Case"})
print(answer["ResponseMetadata"]["HTTPStatusCode"])
