"""Addresses of Redis and the packages that are needed to use them."""

from __future__ import annotations

import sys

import pytest

from recbole_mars.serving.optional import import_optional
from recbole_mars.serving.redis_connection import RedisAddress


def test_all_parts_are_read():
    address = RedisAddress.parse(
        "rediss://me:p%40ss@host:7000/3?timeout=0.5&ssl_ca_certs=/ca.pem&prefix=a%3A&stream=s",
        {"prefix", "stream"},
    )
    assert address == RedisAddress(
        scheme="rediss",
        nodes=(("host", 7000),),
        database=3,
        username="me",
        password="p@ss",
        timeout=0.5,
        tls_files=(("ssl_ca_certs", "/ca.pem"),),
        options=(("prefix", "a:"), ("stream", "s")),
    )
    assert str(address) == "rediss://host:7000/3"
    assert "p@ss" not in repr(address)


def test_parts_have_defaults():
    address = RedisAddress.parse("redis://[::1]")
    assert address == RedisAddress(scheme="redis", nodes=(("::1", 6379),))
    assert address.timeout == 5
    assert RedisAddress.parse("redis://host", timeout=0.25).timeout == 0.25
    assert RedisAddress.parse("redis://host?timeout=2", timeout=0.25).timeout == 2


def test_cluster_has_several_nodes():
    address = RedisAddress.parse("redis+cluster://:pw@a:1,b,c:3")
    assert address.is_cluster
    assert address.nodes == (("a", 1), ("b", 6379), ("c", 3))
    assert str(address) == "redis+cluster://a:1,b:6379,c:3"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("http://host", "got 'http'"),
        ("redis://", "must name HOST:PORT"),
        ("redis://host:port", "must name HOST:PORT"),
        ("redis://host:99999", "must name HOST:PORT"),
        ("redis://[::1", "must be a URL"),
        ("redis://me:secret/x@host", "must name HOST:PORT; in a password write /"),
        ("redis://a,b", r"several nodes need redis\+cluster://"),
        ("redis://host/x", "the database of host must be a number, got 'x'"),
        ("redis+cluster://host/1", "no numbered databases, got '1'"),
        ("redis://host?prefx=a", r"of \['prefix', .*got \['prefx'\]"),
        ("redis://host?prefix=a&prefix=b", "once each"),
        ("redis://host?timeout=0", "timeout must be a number of seconds > 0, got '0'"),
        ("redis://host?timeout=nan", "got 'nan'"),
        ("redis://host?timeout=inf", "got 'inf'"),
        ("redis://host?timeout=x", "got 'x'"),
    ],
)
def test_other_addresses_are_refused(address, found):
    with pytest.raises(ValueError, match=found) as caught:
        RedisAddress.parse(address, {"prefix"})
    assert "secret" not in str(caught.value)


def test_missing_package_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(
        ImportError, match=r"lmdb is needed .*; pip install recbole_mars\[serving\]"
    ):
        import_optional("lmdb")
