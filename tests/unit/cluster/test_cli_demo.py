import io

from rich.console import Console

from shoal.cluster.cli.comparison import Comparison
from shoal.cluster.cli.demo import _summary
from shoal.cluster.gateway.status import InstallationStatus, Report, ShardReport
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import PartitionStatistics, ShardStatistics


def shard(name, *partitions):
    held = [PartitionStatistics(partition=PartitionId(each), events={"modified": 2}) for each in partitions]
    statistics = ShardStatistics(shard=name, incarnation=name, pid=1, partitions=held)
    return ShardReport(shard=ShardId(name), statistics=statistics)


def summary(*shards, differences=()):
    console = Console(file=io.StringIO(), width=120)
    status = InstallationStatus(shoal_version="0", ready=True, report=Report(epoch=Epoch(1), shards=shards))
    _summary(console, status, Comparison(resources=2, objects=7, differences=list(differences)))
    return console.file.getvalue()


def test_a_partition_that_is_on_its_way_is_counted_once():
    """It is held by two shards; the summary used to say "77 of 61 resources"."""
    said = summary(shard("shard-0", "v1/pods", "v1/nodes"), shard("shard-1", "v1/pods"))
    assert "shards      2\npartitions  2 of 2 resources\nobjects     7\n" in said
    assert "every object equals the API server's" in said


def test_differences_are_shown_and_counted():
    said = summary(shard("shard-0", "v1/pods"), differences=["v1/pods a/x: Shoal has nothing"])
    assert "differs: v1/pods a/x: Shoal has nothing" in said
    assert "compared    1 differences" in said
