"""What the DynamoDB store costs, in time and in capacity units: ``python tests/benchmarks/bench_dynamodb.py [FILE.jsonl.gz]``.

Times are of DynamoDB Local on this machine: the ratios are what to compare. The floor of an append is one hand-written boto3
transaction of the same items, that of the last runs one hand-written query; both sides take turns, so that a slow moment hits
both. Capacity units are those of AWS's rules (twice the kilobytes of each item in a transaction; a read by 4 kB), compared with
what Griptape's driver is billed for the same: it rewrites the whole conversation as one attribute after each run.

With a file (here, or in MEMORY_BENCH_DATA) it is imported and exported too.
"""

import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.domain.values import new_id
from memory.transfer import dump, read_lines, restore, uncompressed
from tests.adapters.dynamodb.watching import Calls, watched
from tests.benchmarks.measuring import TEXT, fill, in_turns, report, timed
from tests.servers import dynamodb

if TYPE_CHECKING:
    from memory.domain import criteria

CONVERSATIONS = 20_000
METADATA = {"customer": "ada", "priority": 3}


def report_cost(what: str, calls: Calls, note: str = "") -> None:
    requests = ", ".join(f"{count} {name}" for name, count in calls.counted().items())
    print(f"{what:44} {calls.write_units:6.0f} WCU {calls.read_units:7.1f} RCU   {requests} {note}", flush=True)


def append(store: Store, conversation_id: str) -> None:
    with store.begin() as uow:
        uow.runs.append(conversation_id, Run(TEXT, TEXT))


def last_twenty(store: Store, conversation_id: str) -> None:
    with store.begin() as uow:
        uow.runs.last(conversation_id, 20)


class ByHand:
    """The same items, the same conditions, written by somebody who writes boto3 for this one purpose."""

    def __init__(self, client: Any, table: str, namespace: str) -> None:
        self._client = client
        self._table = table
        self._namespace = namespace
        self._partition = keys.partition("conversation", namespace, "floor")
        self._stamp, self._position, self._at = "", 0, 0
        self._run_set = new_id()
        self._create()

    def _head(self, stamp: str, position: int, at: int) -> dict[str, Any]:
        return {
            "id": {"S": "floor"},
            "stamp": {"S": stamp},
            "version": {"N": "1"},
            "incarnation": {"S": self._run_set},
            "run_count": {"N": str(position)},
            "first_position": {"N": "1"},
            "last_position": {"N": str(position)},
            "created_at": {"N": "1"},
            "updated_at": {"N": str(at)},
            "last_run_at": {"N": str(at)},
            "shard": {"N": "0"},
            "metadata": {"S": json.dumps(METADATA)},
        }

    def _place(self, at: int) -> dict[str, Any]:
        partition = keys.partition("list", "last_run_at", self._namespace, 0)
        return {"pk": {"S": partition}, "sk": {"S": keys.listed(at, "floor")}}

    def _create(self) -> None:
        self._stamp, self._at = new_id(), time.time_ns() // 1000
        head = {"pk": {"S": self._partition}, "sk": {"S": keys.STATE}, **self._head(self._stamp, 0, self._at)}
        self._client.put_item(TableName=self._table, Item=head)

    def append(self) -> None:
        stamp, position, at = new_id(), self._position + 1, time.time_ns() // 1000
        head = self._head(stamp, position, at)
        run = {
            "pk": {"S": self._partition},
            "sk": {"S": keys.run(self._run_set, position)},
            "id": {"S": new_id()},
            "created_at": {"N": str(at)},
            "input": {"S": json.dumps(TEXT)},
            "output": {"S": json.dumps(TEXT)},
            "metadata": {"S": "{}"},
        }
        partition, sort_key = keys.partition("receipt", self._namespace, token := new_id()), "receipt"
        receipt = {
            "pk": {"S": partition},
            "sk": {"S": sort_key},
            "receipt": {"S": json.dumps({"floor": [1, token, position, position]})},
            "ttl": {"N": str(at // 1_000_000 + 172_800)},
        }
        puts: list[dict[str, Any]] = [
            {
                "Item": {"pk": {"S": self._partition}, "sk": {"S": keys.STATE}, **head},
                "ConditionExpression": "stamp = :s",
                "ExpressionAttributeValues": {":s": {"S": self._stamp}},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            },
            {"Item": run},
            {"Item": {**self._place(at), **head}},
            {
                "Item": receipt,
                "ConditionExpression": "attribute_not_exists(pk)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            },
        ]
        self._client.transact_write_items(
            TransactItems=[
                {"Delete": {"TableName": self._table, "Key": self._place(self._at)}},
                *({"Put": {"TableName": self._table, **put}} for put in puts),
            ]
        )
        self._stamp, self._position, self._at = stamp, position, at

    def last_twenty(self, partition: str) -> list[tuple[Any, ...]]:
        response = self._client.query(
            TableName=self._table,
            KeyConditionExpression="pk = :p AND sk BETWEEN :l AND :h",
            ExpressionAttributeValues={":p": {"S": partition}, ":l": {"S": keys.RUNS}, ":h": {"S": keys.STATE}},
            ScanIndexForward=False,
            ConsistentRead=True,
            Limit=21,
        )
        return [
            (
                json.loads(item["input"]["S"]),
                json.loads(item["output"]["S"]),
                json.loads(item["metadata"]["S"]),
                item["id"]["S"],
                int(item["created_at"]["N"]),
            )
            for item in response["Items"]
            if item["sk"]["S"] != keys.STATE
        ]


def bench_times(store: Store, repository: DynamoDbRepository, namespace: str) -> None:
    # A client made as the repository's own: what is compared is what is done with it.
    config = Config(parameter_validation=False, retries={"total_max_attempts": 1}, max_pool_connections=50)
    with closing(boto3.client("dynamodb", endpoint_url=repository.client.meta.endpoint_url, config=config)) as client:
        fill(store, "ours", 30, metadata=METADATA, at_once=500)
        by_hand = ByHand(client, repository._table.name, namespace)
        spent, floor = in_turns(1_000, lambda: append(store, "ours"), by_hand.append)
        report("append a run of 800 bytes", spent, floor, 1.15)
        partition = keys.partition("conversation", namespace, "ours")
        spent, floor = in_turns(500, lambda: last_twenty(store, "ours"), lambda: by_hand.last_twenty(partition))
        report("the last 20 runs", spent, floor, 1.15)


def bench_units(store: Store, repository: DynamoDbRepository) -> None:
    table = f"griptape-{new_id()}"
    client = boto3.client("dynamodb", endpoint_url=repository.client.meta.endpoint_url)
    client.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    for runs in (10, 100, 400):
        fill(store, f"runs-{runs}", runs, metadata=METADATA, at_once=500)
        with watched(repository.client) as calls:
            append(store, f"runs-{runs}")
        report_cost(f"append to {runs} runs", calls)
        blob = json.dumps({"runs": [_griptape_run() for _ in range(runs + 1)], "metadata": {}})
        try:
            client.put_item(TableName=table, Item={"id": {"S": "a"}, "value": {"S": blob}})
            print(
                f"{'  the same by a blob that is rewritten':44} {-(-len(blob) // 1024):6} WCU         ({len(blob):,} bytes)"
            )
        except client.exceptions.ClientError as error:
            print(
                f"{'  the same by a blob that is rewritten':44} {error.response['Error']['Code']} ({len(blob):,} bytes)"
            )
        with watched(repository.client) as calls:
            last_twenty(store, f"runs-{runs}")
        report_cost(f"the last 20 of {runs} runs", calls)
        if len(blob) <= 400_000:
            units = -(-len(blob) // 4096) / 2
            print(f"{'  the same of a blob that is read whole':44} {'':10} {units:7.1f} RCU   (eventually consistent)")
    client.close()


def _griptape_run() -> dict[str, Any]:
    """Return a run as Griptape writes it."""
    artifact: dict[str, Any] = {
        "type": "TextArtifact",
        "id": new_id(),
        "reference": None,
        "meta": {},
        "name": new_id(),
        "value": TEXT,
    }
    return {"type": "Run", "id": new_id(), "meta": None, "input": artifact, "output": artifact}


def fill_for_queries(store: Store) -> None:
    for begin in range(0, CONVERSATIONS, 8):
        with store.begin() as uow:
            for number in range(begin, begin + 8):
                metadata = {
                    "customer": f"customer-{number % 1_000}",
                    "agent": f"agent-{number % 200}",
                    "city": f"city-{number % 50}",
                    "domain": ("Restaurants", "Hotels", "Flights")[number % 3],
                    "amount": number * 7919 % CONVERSATIONS,
                }
                uow.conversations.add(Conversation(f"c{number}", metadata))


def bench_queries(store: Store, repository: DynamoDbRepository) -> None:
    queries: dict[str, criteria.Criterion | None] = {
        "everything": None,
        "equality, 20 match": where("customer") == "customer-77",
        "equality, 100 match": where("agent") == "agent-77",
        "equality, 400 match": where("city") == "city-7",
        "equality, a third match": where("domain") == "Hotels",
        "a third, and 20": (where("domain") == "Hotels") & (where("customer") == "customer-77"),
        "in_, two of 20": where("customer").in_(["customer-77", "customer-78"]),
        "a range of 1 %": where("amount").between(5_000, 5_199),
        "a range of a half": where("amount") < CONVERSATIONS // 2,
        "exists, all": where("amount").exists(),
        "startswith, a tenth": where("customer").startswith("customer-9"),
    }
    for name, criterion in queries.items():
        with watched(repository.client) as calls:
            begin = time.perf_counter()
            page = store.begin().conversations.find(criterion, limit=50)
            spent = time.perf_counter() - begin
        report_cost(f"first page of 50: {name}", calls, f"({len(page)} found, {spent * 1000:.0f} ms)")
    cursor = store.begin().conversations.find(limit=50).cursor
    with watched(repository.client) as calls:
        second = store.begin().conversations.find(limit=50, after=cursor)
    report_cost("second page of 50: everything", calls, f"({len(second)} found)")
    with watched(repository.client) as calls:
        count = store.begin().conversations.count(where("domain") == "Hotels")
    report_cost(f"count of a third: {count:,}", calls)


def bench_import(store: Store, file: Path) -> None:
    with file.open("rb") as stream:
        begin = time.perf_counter()
        totals = restore(store, read_lines(uncompressed(stream)))
    print(
        f"import of {totals.conversations:,} conversations, {totals.runs:,} runs: {time.perf_counter() - begin:.0f} s"
    )
    begin = time.perf_counter()
    size = sum(len(piece) for piece in dump(store))
    print(f"export of {size:,} characters: {time.perf_counter() - begin:.0f} s")
    for criterion in (
        where("domain") == "Restaurants",
        where("party_size") >= 4,
        where("services").contains("Hotels_2"),
    ):
        print(f"  {store.begin().conversations.count(criterion):,} match {criterion}")


def main() -> None:
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MEMORY_BENCH_DATA")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "test")
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
    with closing_server() as url, closing(DynamoDbRepository(f"bench-{new_id()}", endpoint=url)) as repository:
        namespace = new_id()
        store = Store(repository, namespace)
        store.migrate()
        bench_times(store, repository, namespace)
        bench_units(store, repository)
        queries = store.namespace(new_id())
        print(f"{CONVERSATIONS:,} conversations made in {timed(lambda: fill_for_queries(queries)):.0f} s")
        bench_queries(queries, repository)
        if named:
            bench_import(store.namespace(new_id()), Path(named))


class closing_server:  # noqa: N801  # used as the function of its name
    """The server that the tests use, for the time of a block."""

    def __enter__(self) -> str:
        self._server = dynamodb.start()
        return self._server.url

    def __exit__(self, *error: object) -> None:
        self._server.stop()


if __name__ == "__main__":
    main()
