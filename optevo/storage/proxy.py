"""One machine serves its database to others by gRPC: Optuna's proxy, with errors that say what to do.

Importing this needs the extra `grpc`.
"""

from __future__ import annotations

import datetime
import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, _CachedStorage
from optuna.storages._grpc.auto_generated import api_pb2_grpc
from optuna.storages._grpc.client import GrpcClientCache
from optuna.storages._grpc.servicer import OptunaStorageProxyService

from optevo.errors import UserError
from optevo.storage.errors import StorageUnreachable, damaged, first_line, unreachable
from optevo.storage.instants import local
from optevo.storage.retrying import Retrying, never, retrying

THREADS = 10  # of the server, below the 15 connections of SQLAlchemy's pool
# gRPC's own pause before it connects again grows to two minutes, and it would go through an HTTP proxy.
_CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_SERVER = (
    ("grpc.so_reuseport", 0),  # a port in use is to be an error
    ("grpc.max_receive_message_length", -1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # the clients' keepalive is welcome
)


# Optuna sends local times without a zone, which a machine in another one takes for its own. So our client
# says in a call's metadata that it knows instants: the server then answers with a zone. Those that it sends
# go with the metadata too. A client or a server of Optuna's own sees nothing of it.
_KNOWS_INSTANTS = "optevo-instants"
_TIMES = ("datetime_start", "datetime_complete")
_FORMAT = "%Y-%m-%d %H:%M:%S.%f"


def _with_zone(text: str) -> str:
    return datetime.datetime.strptime(text, _FORMAT).astimezone(datetime.UTC).strftime(f"{_FORMAT}%z")


def _without_zone(text: str) -> str:
    return local(datetime.datetime.strptime(text, f"{_FORMAT}%z")).strftime(_FORMAT)


def _times(reply: Any) -> Iterator[tuple[Any, str]]:
    """The trials of an answer with the names of their times, as far as they have them."""
    fields = {field.name for field, _ in reply.ListFields()}
    found = [*(reply.trials if "trials" in fields else ()), *([reply.trial] if "trial" in fields else ())]
    return ((trial, name) for trial in found for name in _TIMES if getattr(trial, name))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Instants(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Times as instants, where the server knows them as well."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        given, metadata = client_call_details, [(_KNOWS_INSTANTS, "1")]
        template = getattr(request, "template_trial", None)
        if template is not None:
            names = [name for name in _TIMES if getattr(template, name)]
            metadata += [(f"optevo-{name}", _with_zone(getattr(template, name))) for name in names]
        call = continuation(
            _Details(
                given.method,
                given.timeout,
                [*(given.metadata or ()), *metadata],
                given.credentials,
                given.wait_for_ready,
                given.compression,
            ),
            request,
        )
        if call.exception() is None:
            for trial, name in _times(call.result()):
                if "+" in (text := getattr(trial, name)):
                    setattr(trial, name, _without_zone(text))
        return call


@retrying
class RetryingGrpcStorageProxy(Retrying, GrpcStorageProxy):
    """Optuna's gRPC client, whose calls are made again after an outage.

    Args:
        host: Of the server.
        port: Of the server.
        name: What to call it in messages.
        should_stop: Asked while waiting; True ends it.
    """

    def __init__(self, *, host: str, port: int, name: str, should_stop: Callable[[], bool] | None) -> None:
        self.name, self.should_stop = name, should_stop or never
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(host=host, port=port)

    def _setup(self) -> None:
        channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=_CHANNEL)
        self._channel = grpc.intercept_channel(channel, _Instants())
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)
        self._cache = GrpcClientCache(self._stub)

    def wait_server_ready(self, timeout: float | None = None) -> None:
        """Wait for a storage to answer on the other side.

        Raises:
            ConnectionError: None does.
        """
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout)
            GrpcStorageProxy.get_study_id_from_name(self, "")  # impatiently
        except KeyError:
            return  # no study has this name
        except grpc.FutureTimeoutError:
            raise ConnectionError(f"no answer within {timeout:.0f} s") from None
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.Call) else None
            raise ConnectionError(details or "no storage answers") from error

    def _explain(self, error: Exception) -> UserError | None:
        if isinstance(error, json.JSONDecodeError):
            return damaged(self.name, first_line(error))
        if not isinstance(error, grpc.RpcError) or not isinstance(error, grpc.Call):
            return None
        code, details = error.code(), error.details() or ""
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return unreachable(self.name, details.partition(";")[0].splitlines()[0] if details else code.name)
        if code == grpc.StatusCode.DATA_LOSS:
            return UserError(details)  # as `optevo storage serve` says it
        return None


class _Served(_CachedStorage):
    """Optuna's cache knows no trial that was begun before the server was started again."""

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        try:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        except KeyError:
            self._backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)


class _Errors(grpc.ServerInterceptor):  # type: ignore[misc]  # as above
    """Tells clients what is wrong with the database, where Optuna's server says "unknown"; and instants."""

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            told = dict(context.invocation_metadata())
            for name in _TIMES:
                if f"optevo-{name}" in told:
                    setattr(request.template_trial, name, _without_zone(told[f"optevo-{name}"]))
            try:
                reply = handler.unary_unary(request, context)
                for trial, name in _times(reply) if _KNOWS_INSTANTS in told else ():
                    setattr(trial, name, _with_zone(getattr(trial, name)))
                return reply
            except StorageUnreachable as error:
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except UserError as error:
                context.abort(grpc.StatusCode.DATA_LOSS, str(error))

        if handler is None or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


def start_server(storage: BaseStorage, host: str, port: int) -> grpc.Server:
    """Serve a database, as `optuna.storages.run_grpc_proxy_server` does; `stop` and `wait` end it.

    Where the database was opened with a `should_stop` that is true at once, the server doesn't wait for one
    that is away: its clients do.

    Raises:
        UserError: The address cannot be had, or the storage is a proxy itself.
    """
    if not isinstance(storage, RDBStorage):
        raise UserError(
            "a proxy serves a database, not another proxy; give the database's URL with --storage"
        )
    server = grpc.server(ThreadPoolExecutor(THREADS), interceptors=(_Errors(),), options=_SERVER)
    api_pb2_grpc.add_StorageServiceServicer_to_server(OptunaStorageProxyService(_Served(storage)), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise UserError(
            f"cannot serve on {address}: is the port in use, or the address not this machine's? "
            "Try another --port or --host"
        ) from None
    server.start()
    return server
