"""What a worker's membership does when partitions come."""

from typing import Any
from unittest.mock import Mock

from confluent_kafka import TopicPartition

from worker.membership import Membership


def test_reading_begins_where_the_offsets_say_and_not_where_librdkafka_would_ask():
    calls = Mock()
    calls.offsets.starts.return_value = [TopicPartition("t", 0, 7), TopicPartition("t", 1, 9)]
    membership = Membership(
        calls.consumer,
        calls.ledger,
        calls.parking,
        calls.backpressure,
        calls.offsets,
        calls.meter,
        assign=calls.assign,
        publish=calls.publish,
    )
    calls.ledger.partitions = ()
    membership.join(["t"])
    assigned: Any = calls.consumer.subscribe.call_args.kwargs["on_assign"]
    assigned(calls.consumer, [TopicPartition("t", 0), TopicPartition("t", 1)])
    calls.offsets.starts.assert_called_once_with([("t", 0), ("t", 1)])
    [[places]] = [call.args for call in calls.assign.call_args_list]
    assert [(each.topic, each.partition, each.offset) for each in places] == [
        ("t", 0, 7),
        ("t", 1, 9),
    ]
