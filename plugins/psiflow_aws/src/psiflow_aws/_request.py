"""The request for an instance, and its start-up script."""

from __future__ import annotations

import hashlib
from typing import Any

from psiflow_aws.options import AWSOptions
from psiflow_core.execution.blocks import Block, Cloud, Docker, start_up_script

METADATA = "http://169.254.169.254/latest"
"""The metadata service of an instance."""

NOTICE = f"""token=$(curl -fs -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {METADATA}/api/token)
curl -fs -m 5 -o /dev/null -H "X-aws-ec2-metadata-token: $token" {METADATA}/meta-data/spot/instance-action"""
"""Shell: whether EC2 will take this spot instance back."""

TAG = "psiflow"
"""The tag with the name of a block."""

LONGEST = 16 * 1024
"""Bytes of a script that EC2 takes."""


def script(options: AWSOptions, block: Block) -> str:
    container = Docker(options.container, options.binds, bool(options.gpus)) if options.container else None
    return start_up_script(block, Cloud(NOTICE), options.setup, options.walltime, container)


def request(options: AWSOptions, block: Block, root_device: str) -> dict[str, Any]:
    """The arguments of `run_instances`; a request that is repeated, since its answer was lost, starts nothing new.

    Args:
        root_device: the device of the root disk, needed for its size alone.
    """
    tags = [
        {"Key": key, "Value": value} for key, value in {**options.tags, "Name": block.name, TAG: block.name}.items()
    ]
    found: dict[str, Any] = {
        "ImageId": options.image,
        "InstanceType": options.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": script(options, block),
        "ClientToken": hashlib.sha256(block.name.encode()).hexdigest()[:64],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if options.spot:
        once = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        found["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": once}
    if options.subnet:
        found["SubnetId"] = options.subnet
    if options.security_groups:
        found["SecurityGroupIds"] = list(options.security_groups)
    if options.instance_profile:
        found["IamInstanceProfile"] = {"Name": options.instance_profile}
    if options.key_name:
        found["KeyName"] = options.key_name
    if options.disk:
        disk = {"VolumeSize": options.disk, "VolumeType": "gp3", "DeleteOnTermination": True}
        found["BlockDeviceMappings"] = [{"DeviceName": root_device, "Ebs": disk}]
    return found
