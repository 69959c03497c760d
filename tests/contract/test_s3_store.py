"""What only an S3 store can do wrong: conditions, rights, certificates, outages, and keys that get shown."""

import itertools
import json
import logging
import pickle
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from brokers.minio import Minio, start_minio
from contract.reach import s3_of
from contract.relay import Answer, Lost, Relay, Request, refusal, relay_to
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from headrace_compute.delta.tables import commit, open_table
from headrace_compute.errors import HeadraceError, StoreDeniedError, StoreFullError, StoreUnavailableError
from headrace_compute.model import S3Config, StoreConfig
from headrace_compute.objects import s3
from headrace_compute.objects.store import KeyExistsError, ObjectStore, S3Store, open_store
from headrace_compute.parts import write_part

pytest_plugins = ["brokers.fixtures"]

SCHEMA = pa.schema({"user_id": pa.string()})


def fresh(s3: S3Config) -> StoreConfig:
    """Four buckets that nobody has made yet."""
    name = uuid.uuid4().hex[:8]
    return StoreConfig("", f"raw-{name}", f"processed-{name}", f"training-{name}", f"features-{name}", s3)


def append(config: StoreConfig, transaction: str) -> int:
    """Commits one row to a table."""
    key = f"{config.features}/acme/user_features"
    part = write_part(open_store(config), f"{key}/{uuid.uuid4().hex}", pa.table({"user_id": [transaction]}))
    return commit(
        config,
        key,
        kind="user_features",
        schema=SCHEMA,
        parts=[part],
        transaction=transaction,
        metadata={},
    )


def operations(config: StoreConfig) -> dict[str, Callable[[], object]]:
    """Every way to the store that a running server takes; `{raw}/a` must be there."""
    store, key = open_store(config), f"{config.raw}/a"
    return {
        "create": lambda: store.create(f"{config.raw}/{uuid.uuid4().hex}", b"x"),
        "put": lambda: store.put(f"{config.raw}/b", b"x"),
        "get": lambda: store.get(key),
        "open": lambda: store.open(key).close(),
        "exists": lambda: store.exists(key),
        "list": lambda: list(store.list(config.raw)),
        "children": lambda: store.children(config.raw),
        "delete": lambda: store.delete(f"{config.raw}/c"),
        "probe": store.probe,
        "commit": lambda: append(config, uuid.uuid4().hex),
        "open_table": lambda: open_table(config, f"{config.features}/acme/user_features"),
    }


def failures(config: StoreConfig) -> dict[str, HeadraceError | None]:
    """How each operation fails, all at once."""

    def fail(operation: Callable[[], object]) -> HeadraceError | None:
        try:
            operation()
        except HeadraceError as error:
            return error
        return None

    named = operations(config)
    with ThreadPoolExecutor(len(named)) as threads:
        return dict(zip(named, threads.map(fail, named.values()), strict=True))


def _answer_from(answers: Iterator[Answer], request: Request) -> Answer | None:
    return next(answers, None)


@pytest.fixture
def relay(minio: Minio) -> Iterator[Relay]:
    with relay_to(minio.endpoint) as relay:
        yield relay


@pytest.fixture
def relayed(s3_config: StoreConfig, relay: Relay) -> StoreConfig:
    """A prepared store that is reached through the relay."""
    assert s3_config.s3 is not None
    config = fresh(replace(s3_config.s3, endpoint=relay.endpoint))
    open_store(config).prepare()
    relay.seen.clear()
    return config


@pytest.fixture(scope="module")
def tls_minio(minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    server = start_minio(tmp_path_factory.mktemp("tls"), tls=True)
    yield server
    server.stop()


@pytest.fixture
def limited(minio: Minio) -> Iterator[Callable[..., StoreConfig]]:
    """Makes users who may do nothing but what is named."""
    provider = StaticProvider(minio.access_key, minio.secret_key)
    admin = MinioAdmin(endpoint=minio.endpoint.removeprefix("http://"), credentials=provider, secure=False)
    users = []

    def make(config: StoreConfig, *actions: str) -> StoreConfig:
        name = f"user-{uuid.uuid4().hex[:8]}"
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": ["arn:aws:s3:::*"]}
        admin.user_add(name, secret := uuid.uuid4().hex)
        users.append(name)
        if actions:
            admin.policy_add(name, policy={"Version": "2012-10-17", "Statement": [statement]})
            admin.policy_set(name, user=name)
        return replace(config, s3=replace(s3_of(minio), access_key=name, secret_key=secret))

    yield make
    for name in users:
        admin.user_remove(name)


def test_create_sends_its_condition_as_a_signed_header_and_put_does_not(
    relayed: StoreConfig, relay: Relay
) -> None:
    store = open_store(relayed)
    store.create(f"{relayed.raw}/a/created", b"x")
    store.put(f"{relayed.raw}/a/put", b"x")
    (created,), (put,) = (relay.puts(f"/{relayed.raw}/a/{name}") for name in ("created", "put"))
    assert created.headers["if-none-match"] == "*"
    assert "if-none-match;" in created.headers["authorization"]
    assert "if-none-match" not in put.headers
    assert not [name for name in created.headers if name.startswith("x-amz-meta")]


def test_a_commit_puts_its_log_entry_on_the_same_condition(relayed: StoreConfig, relay: Relay) -> None:
    assert append(relayed, "t") == 1
    log = f"/{relayed.features}/acme/user_features/_delta_log"
    for version in (0, 1):
        (put,) = relay.puts(f"{log}/{version:020d}.json")
        assert put.headers["if-none-match"] == "*"


def test_a_part_and_a_record_cost_one_request_each(relayed: StoreConfig, relay: Relay) -> None:
    store = open_store(relayed)
    store.create(f"{relayed.raw}/record", b"{}")
    store.create(f"{relayed.raw}/part", bytes(20 << 20))
    assert [request.method for request in relay.seen] == ["PUT", "PUT"]


def test_missing_buckets_are_made_and_present_ones_taken_as_they_are(s3_config: StoreConfig) -> None:
    assert s3_config.s3 is not None
    config = fresh(s3_config.s3)
    store = S3Store(config, s3_config.s3)
    with pytest.raises(StoreDeniedError, match="NoSuchBucket") as caught:
        store.create(f"{config.raw}/a", b"x")
    assert caught.value.attributes == {"bucket": config.raw, "code": "NoSuchBucket"}
    with pytest.raises(StoreDeniedError, match=config.raw):
        store.probe()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: store.prepare(), range(4)))
    store.create(f"{config.raw}/a", b"x")
    store.prepare()
    store.probe()
    assert store.get(f"{config.raw}/a") == b"x"


@pytest.mark.parametrize("bucket", ["Raw", "a", "raw/data", "10.0.0.1", "raw_data"])
def test_a_name_that_no_bucket_can_have_is_refused(s3_config: StoreConfig, bucket: str) -> None:
    config = replace(s3_config, raw=bucket)
    with pytest.raises(StoreDeniedError, match="cannot name a bucket"):
        open_store(config).prepare()


def test_a_store_that_ignores_the_condition_is_refused_at_the_start(
    s3_config: StoreConfig, relay: Relay
) -> None:
    first: set[str] = set()

    def say_yes(request: Request) -> Answer | None:
        if request.method != "PUT" or request.path not in first:
            first.add(request.path)
            return None
        return Answer(200)

    assert s3_config.s3 is not None
    config = fresh(replace(s3_config.s3, endpoint=relay.endpoint))
    relay.meddle = say_yes
    with pytest.raises(StoreDeniedError, match=r"64 of 64.*If-None-Match") as caught:
        open_store(config).prepare()
    assert caught.value.attributes["bucket"] == config.raw
    assert list(open_store(config).list(config.raw)) == []


def test_a_store_that_does_not_know_the_condition_is_refused_at_the_start(
    relayed: StoreConfig, relay: Relay
) -> None:
    relay.meddle = lambda request: (
        refusal(501, "NotImplemented") if "if-none-match" in request.headers else None
    )
    with pytest.raises(StoreDeniedError, match="NotImplemented"):
        open_store(relayed).prepare()


def test_an_answer_lost_on_the_way_to_a_create_is_found_as_what_one_wrote(
    relayed: StoreConfig, relay: Relay
) -> None:
    lost = iter([Lost()])
    relay.meddle = lambda request: next(lost, None) if request.method == "PUT" else None
    with pytest.raises(KeyExistsError):
        open_store(relayed).create(f"{relayed.raw}/a", b"mine")
    assert open_store(relayed).get(f"{relayed.raw}/a") == b"mine"


def test_a_part_whose_answer_was_lost_is_written(relayed: StoreConfig, relay: Relay) -> None:
    lost = iter([Lost()])
    relay.meddle = lambda request: next(lost, None) if request.method == "PUT" else None
    part = write_part(open_store(relayed), f"{relayed.raw}/p", pa.table({"user_id": ["a"]}))
    assert len(open_store(relayed).get(f"{relayed.raw}/p")) == part.size_bytes


def test_a_commit_whose_answer_was_lost_is_not_repeated(relayed: StoreConfig, relay: Relay) -> None:
    append(relayed, "first")
    lost = iter([Lost()])
    relay.meddle = lambda request: (
        next(lost, None) if request.method == "PUT" and "_delta_log" in request.path else None
    )
    assert append(relayed, "second") == 2
    table = open_table(relayed, f"{relayed.features}/acme/user_features")
    assert (table.version, table.rows) == (2, 2)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"),
        (500, "InternalError"),
        (409, "ConditionalRequestConflict"),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
    ],
)
def test_what_fails_in_passing_is_tried_again(
    relayed: StoreConfig, relay: Relay, status: int, code: str
) -> None:
    store = open_store(relayed)
    reads: list[Callable[[], object]] = [
        lambda: store.put(f"{relayed.raw}/a", b"x"),
        lambda: store.create(f"{relayed.raw}/{uuid.uuid4().hex}", b"x"),
        lambda: store.get(f"{relayed.raw}/a"),
        lambda: list(store.list(relayed.raw)),
        lambda: store.delete_all(f"{relayed.raw}/none"),
    ]
    for read in reads:
        answers = iter([refusal(status, code)])
        relay.meddle = partial(_answer_from, answers)
        read()


def test_a_write_that_is_refused_by_mistake_is_tried_again(relayed: StoreConfig, relay: Relay) -> None:
    # As MinIO does while the folder's last object is being deleted.
    refusals = iter([refusal(403, "AccessDenied"), refusal(403, "AccessDenied")])
    relay.meddle = lambda request: next(refusals, None)
    open_store(relayed).create(f"{relayed.raw}/a", b"x")
    relay.meddle = lambda request: refusal(403, "AccessDenied")
    with pytest.raises(StoreDeniedError):
        open_store(relayed).put(f"{relayed.raw}/b", b"x")
    assert len(relay.puts(f"/{relayed.raw}/b")) == 3
    with pytest.raises(StoreDeniedError):
        open_store(relayed).get(f"{relayed.raw}/a")
    assert [request.method for request in relay.seen].count("GET") == 1


def test_what_goes_on_failing_is_given_up_soon(
    relayed: StoreConfig, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.01)
    relay.meddle = lambda request: refusal(503, "SlowDown")
    with pytest.raises(StoreUnavailableError, match="SlowDown"):
        open_store(relayed).put(f"{relayed.raw}/a", b"x")
    assert len(relay.seen) == s3.TRIES


@pytest.mark.parametrize(
    ("status", "code"), [(507, "XMinioStorageFull"), (400, "XMinioAdminBucketQuotaExceeded")]
)
def test_a_full_store_is_told_at_once(relayed: StoreConfig, relay: Relay, status: int, code: str) -> None:
    relay.meddle = lambda request: refusal(status, code) if request.method == "PUT" else None
    with pytest.raises(StoreFullError, match=code):
        open_store(relayed).create(f"{relayed.raw}/a", b"x")
    assert len(relay.puts(f"/{relayed.raw}/a")) == 1
    relay.meddle = lambda request: refusal(status, code) if "_delta_log" in request.path else None
    with pytest.raises(StoreFullError, match=code):
        append(relayed, "t")


def test_a_bucket_above_its_quota_is_full(minio: Minio, s3_config: StoreConfig) -> None:
    assert s3_config.s3 is not None
    config = fresh(s3_config.s3)
    open_store(config).prepare()
    provider = StaticProvider(minio.access_key, minio.secret_key)
    admin = MinioAdmin(endpoint=minio.endpoint.removeprefix("http://"), credentials=provider, secure=False)
    admin.bucket_quota_set(config.raw, 1 << 20)
    with pytest.raises(StoreFullError):
        open_store(config).create(f"{config.raw}/a", bytes(2 << 20))


def test_a_body_may_take_longer_than_a_connection(relayed: StoreConfig, relay: Relay) -> None:
    relay.pause_seconds = 0.15
    open_store(relayed).create(f"{relayed.raw}/a", bytes(20 << 20))


def test_a_user_without_rights_is_refused_at_the_start_and_in_use(
    s3_config: StoreConfig, limited: Callable[..., StoreConfig]
) -> None:
    config = limited(s3_config)
    with pytest.raises(StoreDeniedError, match=r"cannot list raw-data: AccessDenied.*s3:ListBucket"):
        open_store(config).prepare()
    open_store(s3_config).put("raw-data/a", b"x")
    for name, error in failures(config).items():
        assert isinstance(error, StoreDeniedError), (name, error)
        assert error.attributes["code"] == "AccessDenied"


@pytest.mark.parametrize(
    ("missing", "verb"),
    [
        ("s3:CreateBucket", "make"),
        ("s3:ListBucket", "list"),
        ("s3:PutObject", "write"),
        ("s3:GetObject", "read"),
        ("s3:DeleteObject", "delete"),
    ],
)
def test_the_one_right_that_is_missing_is_named_at_the_start(
    s3_config: StoreConfig, limited: Callable[..., StoreConfig], missing: str, verb: str
) -> None:
    rights = {"s3:CreateBucket", "s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject"}
    assert s3_config.s3 is not None
    fresh_config = fresh(s3_config.s3)
    with pytest.raises(StoreDeniedError, match=f"cannot {verb} .*{missing}") as caught:
        open_store(limited(fresh_config, *(rights - {missing}))).prepare()
    assert caught.value.attributes == {"bucket": fresh_config.raw, "code": "AccessDenied"}


def test_five_rights_are_enough(s3_config: StoreConfig, limited: Callable[..., StoreConfig]) -> None:
    assert s3_config.s3 is not None
    rights = ("s3:CreateBucket", "s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject")
    config = limited(fresh(s3_config.s3), *rights)
    store = open_store(config)
    store.prepare()
    store.put(f"{config.raw}/a", b"x")
    append(config, "t")
    assert {name: error for name, error in failures(config).items() if error} == {}
    store.delete_all(config.raw)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"access_key": "nobody"}, "InvalidAccessKeyId.*access key"),
        ({"secret_key": "wrong-wrong-wrong"}, "SignatureDoesNotMatch.*secret key"),
    ],
)
def test_wrong_keys_are_told_from_missing_rights(
    s3_config: StoreConfig, change: dict[str, str], remedy: str
) -> None:
    assert s3_config.s3 is not None
    s3 = replace(s3_config.s3, **change)
    with pytest.raises(StoreDeniedError, match=remedy):
        open_store(replace(s3_config, s3=s3)).prepare()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [("AuthorizationHeaderMalformed", "the region"), ("RequestTimeTooSkewed", "the clocks")],
)
def test_a_request_the_store_cannot_take_names_what_to_set(
    relayed: StoreConfig, relay: Relay, code: str, remedy: str
) -> None:
    # MinIO takes any region as long as it is not told its own.
    relay.meddle = lambda request: refusal(400, code)
    with pytest.raises(StoreDeniedError, match=f"{code}.*{remedy}"):
        open_store(relayed).prepare()


def test_https_works_with_the_stores_own_authority(tls_minio: Minio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/overwritten")
    config = fresh(s3_of(tls_minio))
    store = open_store(config)
    store.prepare()
    store.probe()
    store.create(f"{config.raw}/a", bytes(8 << 20))
    assert [append(config, name) for name in ("t1", "t2", "t1")] == [1, 2, 1]
    assert {name: error for name, error in failures(config).items() if error} == {}
    with pytest.raises(KeyExistsError):
        store.create(f"{config.raw}/a", bytes(40 << 20))


def test_https_without_the_authority_fails_clearly_and_at_once(
    tls_minio: Minio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for ca_file in ("", str(tmp_path / "none.pem")):
        monkeypatch.setenv("SSL_CERT_FILE", "")
        config = fresh(replace(s3_of(tls_minio), ca_file=ca_file))
        with pytest.raises(StoreDeniedError, match=r"UntrustedCertificate.*CA file"):
            open_store(config).prepare()
        for name, error in failures(config).items():
            assert isinstance(error, StoreDeniedError), (name, error)


def test_a_scheme_the_store_does_not_speak_is_refused(minio: Minio, tls_minio: Minio) -> None:
    http = replace(s3_of(tls_minio), endpoint=tls_minio.endpoint.replace("https", "http"))
    with pytest.raises(StoreDeniedError, match="HTTP 400"):
        open_store(fresh(http)).prepare()
    https = replace(s3_of(minio), endpoint=minio.endpoint.replace("http", "https"))
    with pytest.raises(StoreUnavailableError, match=r"\[https://127\.0\.0\.1"):
        open_store(fresh(https)).prepare()


@pytest.mark.parametrize("prepared", [False, True])
def test_a_stopped_store_is_unavailable_and_works_again_after_its_return(
    minio: Minio, s3_config: StoreConfig, prepared: bool
) -> None:
    open_store(s3_config).put("raw-data/a", b"x")
    append(s3_config, "t")
    minio.kill()
    try:
        if prepared:
            found = failures(s3_config)
        else:
            with pytest.raises(StoreUnavailableError, match=minio.endpoint):
                open_store(s3_config).prepare()
            found = {}
    finally:
        minio.start()
    for name, error in found.items():
        assert type(error) is StoreUnavailableError, (name, error)
    open_store(s3_config).prepare()
    assert {name: error for name, error in failures(s3_config).items() if error} == {}


def test_a_store_that_hangs_is_unavailable(minio: Minio, s3_config: StoreConfig) -> None:
    open_store(s3_config).put("raw-data/a", b"x")
    append(s3_config, "t")
    minio.pause()
    try:
        found = failures(s3_config)
    finally:
        minio.resume()
    for name, error in found.items():
        assert type(error) is StoreUnavailableError, (name, error)


def test_an_outage_of_a_second_is_waited_out(minio: Minio, s3_config: StoreConfig) -> None:
    open_store(s3_config).put("raw-data/a", b"x")
    minio.pause()
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(open_store(s3_config).get, "raw-data/a")
        time.sleep(1)
        minio.resume()
        assert reading.result() == b"x"


def shown(value: object) -> str:
    """All that a log or a dashboard could show of a value."""
    text = f"{value!s} {value!r} {vars(value) if isinstance(value, HeadraceError) else ''}"
    return text + "".join(traceback.format_exception(value)) if isinstance(value, HeadraceError) else text


def test_no_key_is_shown_by_configurations_errors_and_logs(
    s3_config: StoreConfig, relayed: StoreConfig, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    s3 = relayed.s3
    assert s3 is not None
    caplog.set_level(logging.DEBUG)
    store = open_store(relayed)
    store.put(f"{relayed.raw}/a", b"x")
    texts = [shown(each) for each in (relayed, s3, pickle.loads(pickle.dumps(relayed)), store)]
    # What S3 itself sends with this refusal.
    signature = "f" * 64
    repeated = f"<AWSAccessKeyId>{s3.access_key}</AWSAccessKeyId><Signature>{signature}</Signature>"
    for answer in (refusal(403, "SignatureDoesNotMatch", repeated), refusal(503, "SlowDown", repeated)):
        relay.meddle = partial(_answer_from, itertools.repeat(answer))
        for name, error in failures(relayed).items():
            assert error is not None, name
            texts += [shown(error), shown(pickle.loads(pickle.dumps(error)))]
    texts.append(caplog.text)
    for secret in (s3.access_key, s3.secret_key, signature):
        assert not [text for text in texts if secret in text]


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:9000", "ftp://127.0.0.1", "http://", "http://a/path", "http://user:hunter2@127.0.0.1:9000"],
)
def test_endpoints_that_are_none_are_refused_and_passwords_not_repeated(endpoint: str) -> None:
    with pytest.raises(ValueError, match="S3 endpoint") as caught:
        S3Config(endpoint, "a", "b")
    assert "hunter2" not in str(caught.value)


def test_variables_of_somebody_elses_shell_lead_nowhere_else(
    s3_config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s3_config.s3 is not None
    elsewhere = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_SESSION_TOKEN": "somebody-elses",
        "AWS_ACCESS_KEY_ID": "somebody-elses",
        "AWS_SECRET_ACCESS_KEY": "somebody-elses",
        "AWS_REGION": "eu-west-1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
        "AWS_CONDITIONAL_PUT": "disabled",
    }
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    config = fresh(s3_config.s3)
    open_store(config).prepare()
    assert append(config, "t") == 1


def test_a_proxy_that_does_not_lead_to_the_store_is_found_at_the_start(
    s3_config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreUnavailableError, match="NO_PROXY"):
        open_store(s3_config).prepare()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    open_store(s3_config).prepare()


def test_options_for_deltalake_never_allow_an_unsafe_rename(s3_config: StoreConfig) -> None:
    options = open_store(s3_config).storage_options()
    assert "unsafe" not in json.dumps(options).lower()
    assert options["AWS_CONDITIONAL_PUT"] == "etag"


def test_what_one_store_writes_another_process_reads(s3_config: StoreConfig) -> None:
    assert s3_config.s3 is not None
    ours: ObjectStore = open_store(s3_config)
    theirs: ObjectStore = S3Store(s3_config, pickle.loads(pickle.dumps(s3_config.s3)))
    ours.put("raw-data/a", b"x")
    assert theirs.get("raw-data/a") == b"x"
