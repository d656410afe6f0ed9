"""What Kafka says of the workers' consumer group."""

from typing import Final, TypeAlias

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConsumerGroupDescription,
    OffsetSpec,
    ResourceType,
)

from shared.topics import Topics
from tests.fetching import wait_until

Place: TypeAlias = tuple[str, int]

PARTITIONS: Final = 12
ASK_SECONDS: Final = 20.0
_SESSION_MS: Final = 6_000


class Group:
    """Asks for the members and the next offsets of a group.

    `onlooker` has the group's id, and joins it as little as the admin client does.
    """

    def __init__(self, name: str, topics: Topics, admin: AdminClient, onlooker: Consumer) -> None:
        self.name = name
        self._topics = topics
        self._admin = admin
        self._onlooker = onlooker
        # The admin client hangs if it is asked of a group while its coordinator is being made.
        wait_until(self._is_coordinated, within=ASK_SECONDS)

    def notice_deaths_soon(self) -> None:
        """Have Kafka miss a killed member after the shortest time that it allows."""
        entry = ConfigEntry(
            "consumer.session.timeout.ms",
            str(_SESSION_MS),
            incremental_operation=AlterConfigOpType.SET,
        )
        resource = ConfigResource(ResourceType.GROUP, self.name, incremental_configs=[entry])
        for future in self._admin.incremental_alter_configs([resource]).values():
            future.result(ASK_SECONDS)

    def members(self) -> int:
        """How many members of the workers' group have partitions; -1 where nobody says."""
        try:
            return sum(1 for each in self._describe().members if each.assignment.topic_partitions)
        except (KafkaException, TimeoutError):
            return -1

    def is_ahead(self) -> bool:
        """Whether rows beyond a committed offset are published, as Kafka has it now."""
        places = [TopicPartition(self._topics.interactive, each) for each in range(PARTITIONS)]
        try:
            return any(place.metadata for place in self._onlooker.committed(places, ASK_SECONDS))
        except KafkaException:
            return False

    def is_read(self) -> bool:
        """Whether the workers' next offsets are the ends of all that they read."""
        try:
            return not self.lags()
        except (KafkaException, TimeoutError):
            return False

    def lags(self) -> dict[Place, tuple[int, int]]:
        """Of the partitions that are not read and committed to their ends: next offset and end."""
        places = [
            TopicPartition(topic, number)
            for topic in self._topics.to_score
            for number in range(PARTITIONS)
        ]
        self._admin.list_topics(timeout=ASK_SECONDS)  # else it asks for epochs that are over
        asked = self._admin.list_offsets(
            {place: OffsetSpec.latest() for place in places}, request_timeout=ASK_SECONDS
        )
        ends = {
            (place.topic, place.partition): future.result(ASK_SECONDS).offset
            for place, future in asked.items()
        }
        committed = {
            (place.topic, place.partition): max(0, place.offset)
            for place in self._onlooker.committed(places, timeout=ASK_SECONDS)
        }
        both = {place: (committed[place], end) for place, end in ends.items()}
        return {place: (at, end) for place, (at, end) in both.items() if at != end}

    def explain(self) -> str:
        """Who has which partitions, and what is not done of them."""
        try:
            group, lags = self._describe(), self.lags()
        except (KafkaException, TimeoutError) as error:
            return f"group {self.name}: {error!r}"
        lines = [f"group {self.name}: {group.state}"]
        for member in group.members:
            held = (f"{p.topic}-{p.partition}" for p in member.assignment.topic_partitions)
            lines.append(f"member {member.member_id}: {' '.join(sorted(held))}")
        lines += [f"{topic}-{number}: {at} of {end}" for (topic, number), (at, end) in lags.items()]
        return "\n".join(lines)

    def _is_coordinated(self) -> bool:
        try:
            self._onlooker.committed([TopicPartition(self._topics.pairs, 0)], timeout=ASK_SECONDS)
        except KafkaException:
            return False
        return True

    def _describe(self) -> ConsumerGroupDescription:
        asked = self._admin.describe_consumer_groups([self.name], request_timeout=ASK_SECONDS)
        found: ConsumerGroupDescription = asked[self.name].result(ASK_SECONDS)
        return found
