"""Kubernetes' functions in CEL, one expression a line."""

import pytest

from controlplane.api.cel.environment import (
    CompileError,
    CostExceeded,
    EvaluationError,
    compile_expression,
)

TRUE = r"""
[1, 2, 3].isSorted()
![2, 1].isSorted()
[1, 2, 3].sum() == 6
[1.5, 2.5].sum() == 4.0
["b", "a"].min() == "a"
[1, 3].max() == 3
["a", "b", "a"].lastIndexOf("a") == 2
[1].indexOf(2) == -1
"b1 and b2".find("b[0-9]") == "b1"
"b1 and b2".find("x") == ""
"b1 and b2".findAll("b[0-9]") == ["b1", "b2"]
"b1 and b2".findAll("b[0-9]", 1) == ["b1"]
sets.contains([1, 2], [1])
sets.equivalent([1, 2, 2], [2, 1])
!sets.intersects([1], [2])
isURL("https://user:pass@example.com:80/path?query=val#frag")
isURL("/absolute-path")
!isURL("no url")
url("https://example.com:80/path?k=a&k=b").getHost() == "example.com:80"
url("https://[::1]:80/").getHostname() == "::1"
url("https://example.com/").getPort() == ""
url("https://example.com/a%20b").getEscapedPath() == "/a%20b"
url("https://example.com/?k=a&k=b").getQuery()["k"] == ["a", "b"]
isQuantity("1.3Gi") && !isQuantity("1.3 Gi")
quantity("50000G").isInteger() && !quantity("500m").isInteger()
quantity("50k").asInteger() == 50000
quantity("1500m").asApproximateFloat() == 1.5
quantity("-1").sign() == -1
quantity("50k").add("20k" == "" ? 1 : 20000) == quantity("70k")
quantity("200M").sub(quantity("1M")) == quantity("199M")
quantity("200M").compareTo(quantity("0.2G")) == 0
quantity("125Mi").isGreaterThan(quantity("100Mi"))
quantity("50M").isLessThan(quantity("100M"))
isIP("127.0.0.1") && isIP("::1") && !isIP("127.0.0.256") && !isIP("::ffff:1.2.3.4")
ip("127.0.0.1").family() == 4
ip("::1").isLoopback()
ip.isCanonical("2001:db8::abcd") && !ip.isCanonical("2001:DB8::ABCD")
ip("224.0.0.1").isLinkLocalMulticast()
ip("192.168.0.1").isGlobalUnicast()
string(ip("127.0.0.1")) == "127.0.0.1"
isCIDR("192.168.0.0/16") && !isCIDR("192.168.0.0")
cidr("192.168.0.0/24").containsIP("192.168.0.1")
cidr("192.168.0.0/24").containsIP(ip("192.168.0.1"))
cidr("192.168.0.0/16").containsCIDR("192.168.10.0/24")
cidr("192.168.0.1/24").ip() == ip("192.168.0.1")
cidr("192.168.0.1/24").masked() == cidr("192.168.0.0/24")
cidr("192.168.0.0/24").prefixLength() == 24
isSemver("1.2.3") && !isSemver("v1.2") && isSemver("v1.2", true)
semver("1.2.3").major() == 1 && semver("1.2.3").patch() == 3
semver("1.2.3-alpha").isLessThan(semver("1.2.3"))
semver("1.2.3-2").isLessThan(semver("1.2.3-10"))
!format.dns1123Label().validate("my-name").hasValue()
format.dns1123Label().validate("My name").hasValue()
format.named("uuid").hasValue()
optional.of(1).orValue(2) == 1
"%s is %d".format(["x", 3]) == "x is 3"
"a,b".split(",").size() == 2
"abc".upperAscii() == "ABC"
math.greatest(1, 2) == 2
"2024-01-02T00:00:00Z".getFullYear() == 2024
"2024-01-02T00:00:00Z" < timestamp("2024-01-03T00:00:00Z")
"30s" < duration("1m")
timestamp("2024-01-02T00:00:00Z") >= "2024-01-01T00:00:00Z"
""".strip().splitlines()


@pytest.mark.parametrize("text", TRUE)
def test_it_is_true(text: str) -> None:
    assert compile_expression(text, ()).evaluate({}) is True


@pytest.mark.parametrize(("text", "message"), [
    ("self.missing == 1", "no such key: missing"),
    ("self.a + 'x' == 'y'", "no such overload"),
    ("1 / (self.a - 1) == 1", "division by zero"),
    ("quantity(self.b) == quantity('1')", "quantities must match the regular expression"),
    ("[].min() == 1", "min called on empty list"),
    ("self.a.isLoopback()", "no such overload"),
])  # fmt: skip
def test_errors_are_cel_gos(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message.replace("(", r"\(")):
        compile_expression(text, ("self",)).evaluate({"self": {"a": 1, "b": "x"}})


def test_what_cannot_be_compiled_says_where() -> None:
    with pytest.raises(CompileError, match=r"^ERROR: <input>:1:9: undeclared reference to 'foo' \(in container ''\)"):
        compile_expression("self.foo()", ("self",))
    with pytest.raises(CompileError, match="Syntax error"):
        compile_expression("self.a +", ("self",))


def test_loops_end() -> None:
    with pytest.raises(CostExceeded, match="actual cost limit exceeded"):
        compile_expression("self.all(x, self.all(y, self.all(z, x + y + z >= 0)))", ("self",)).evaluate(
            {"self": list(range(200))}
        )


def test_a_program_knows_what_it_returns() -> None:
    assert compile_expression("1 == 1", ()).returns == "bool"
    assert compile_expression("'a'", ()).returns == "string"
    assert compile_expression("self.x", ("self",)).returns == "dyn"
