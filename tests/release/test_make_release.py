"""``make release``, pushed to a real registry, from which README's command then installs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from release.images import Image
from release.wish import PLATFORMS, Refused, Wish
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
from tests.authorities import Authority
from tests.conftest import ROOT, tool
from tests.waiting import PATIENCE_S, eventually

from release import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "django-task-operator"
IMAGES = (NAME, "django-task-worker")
README = (ROOT / "README.md").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SOURCE_URL = "https://git.example/team/operator"


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options)


def names(archive: Path) -> list[str]:
    """The files of an archive."""
    with tarfile.open(archive) as opened:
        return [entry.name for entry in opened if entry.isfile()]


def content(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as opened:
        file = opened.extractfile(name)
        assert file, f"{name} is no file"
        return file.read()


def printed(*command: str | Path, **options: Any) -> str:
    done = run(*command, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Release:
    folder: Path
    registry: str
    variables: dict[str, str]
    said: str

    def make(self, *, output: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        wanted = {"VERSION": VERSION, "DRAFT": "1", "REGISTRY": self.registry, "SOURCE_URL": SOURCE_URL}
        wanted |= {"OUTPUT": str(output or self.folder), **variables}
        given = [f"{key}={value}" for key, value in wanted.items()]
        return run("make", "--no-print-directory", "release", *given, cwd=ROOT, env=self.variables)

    def digest(self, image: str) -> str:
        name = f"{self.registry}/{image}:{VERSION}"
        return printed(tool("crane"), "digest", name, env=self.variables).strip()

    def archives(self) -> dict[str, Path]:
        return {image: self.folder / f"{image}-{VERSION}-oci.tar" for image in IMAGES}

    @property
    def chart(self) -> Path:
        return self.folder / f"{NAME}-{VERSION}.tgz"

    @property
    def provenance(self) -> dict[str, Any]:
        statement: dict[str, Any] = json.loads((self.folder / "provenance.intoto.json").read_text())
        return statement


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """An empty registry with TLS, and the environment of those who trust its authority."""
    folder = tmp_path_factory.mktemp("registry")
    authority = Authority.make()
    certificate, key = authority.sign("127.0.0.1")
    (folder / "certificate.pem").write_text(certificate)
    (folder / "key.pem").write_text(key)
    system = (
        os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    )
    (folder / "trusted.pem").write_text((Path(system).read_text() if system else "") + authority.pem)
    configuration = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
        "http": {
            "addr": "127.0.0.1:0",
            "tls": {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")},
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    command = [tool("docker-registry"), "serve", str(folder / "config.yaml")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port_of(server, folder / 'log')}/team", environment(folder / "trusted.pem")
    finally:
        server.kill()
        server.wait()


def port_of(server: subprocess.Popen[bytes], log: Path) -> str:
    def listens() -> re.Match[str] | None:
        assert server.poll() is None, log.read_text()
        return re.search(r"listening on [^\s\"]*:(\d+), tls", log.read_text())

    found = eventually(lambda: listens() or False, "the registry listens")
    return found[1]


def environment(trusted: Path) -> dict[str, str]:
    # Go's programs, which trust nobody else then, and the builds of images.
    path = f"{ROOT / 'build' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SSL_CERT_FILE": str(trusted), "MAKEFLAGS": ""}


@pytest.fixture(scope="module")
def release(served: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Release:
    where, variables = served
    folder = tmp_path_factory.mktemp("released") / "release"
    empty = Release(folder, where, variables, "")
    done = empty.make()
    assert done.returncode == 0, done.stderr
    return Release(folder, where, variables, done.stderr)


def test_its_checksums_are_right_and_name_every_file(release: Release) -> None:
    checked = printed("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=release.folder)

    listed = {line.partition(": ")[0] for line in checked.splitlines()}
    assert listed == {path.name for path in release.folder.iterdir()} - {"SHA256SUMS"}


def test_it_is_for_both_platforms_or_says_which_one_is_left_out(release: Release) -> None:
    built = release.provenance["predicate"]["buildDefinition"]["externalParameters"]["platforms"]

    assert built
    for platform in PLATFORMS:
        assert (platform in built) != (
            f"LEFT OUT: {platform}, because this machine cannot build" in release.said
        )


@pytest.mark.parametrize("image", IMAGES)
def test_an_archive_is_the_image_that_the_registry_has(release: Release, image: str) -> None:
    path = release.archives()[image]
    (index,) = json.loads(content(path, "index.json"))["manifests"]
    blobs = [name for name in names(path) if name.startswith("blobs/sha256/")]
    assert len(blobs) > 3
    for blob in blobs:
        assert hashlib.sha256(content(path, blob)).hexdigest() == Path(blob).name
    name = f"{release.registry}/{image}:{VERSION}"
    manifest = json.loads(printed(tool("crane"), "manifest", name, env=release.variables))
    config = json.loads(printed(tool("crane"), "config", name, env=release.variables))

    assert index["digest"] == release.digest(image)
    assert index["annotations"]["io.containerd.image.name"] == f"docker.io/library/{image}:{VERSION}"
    assert {
        f"{one['platform']['os']}/{one['platform']['architecture']}" for one in manifest["manifests"]
    } == set(release.provenance["predicate"]["buildDefinition"]["externalParameters"]["platforms"])
    labels = {key.rpartition(".")[2]: value for key, value in config["config"]["Labels"].items()}
    assert labels.items() >= {"version": VERSION, "source": SOURCE_URL}.items()


def test_the_file_for_kubectl_has_these_images(release: Release) -> None:
    text = (release.folder / f"{NAME}.yaml").read_text()

    for image in IMAGES:
        assert f"{release.registry}/{image}:{VERSION}@{release.digest(image)}" in text
    committed = (ROOT / "install" / f"{NAME}.yaml").read_text()
    for image in IMAGES:
        text = text.replace(
            f"{release.registry}/{image}:{VERSION}@{release.digest(image)}", f"{image}:{VERSION}"
        )
    assert text == committed


def readme_block(command: str) -> str:
    (block,) = [one for one in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if command in one]
    return str(block)


def test_readmes_command_installs_from_the_registry(release: Release) -> None:
    """All but the registry is as it is written, only that Helm shows what it would install."""
    block = readme_block("helm install")
    first, rest = block.split("\n", 1)
    assert re.fullmatch(r"REGISTRY=\S+", first)
    assert "registry.example" not in rest
    template = 'helm() { shift && command helm template "$@"; }'
    dry = f"{template}\nREGISTRY={release.registry}\n{rest}"
    done = printed("bash", "-euo", "pipefail", "-c", dry, env=release.variables, cwd=release.folder)

    assert f'image: "{release.registry}/{NAME}:{VERSION}"' in done
    assert f"--runtime-image={release.registry}/django-task-worker:{VERSION}" in done


def test_readmes_command_makes_what_the_other_one_installs() -> None:
    made, installed = readme_block("make release"), readme_block("helm install")

    assert re.findall(r"REGISTRY=(\S+)", made) == re.findall(r"REGISTRY=(\S+)", installed)
    assert re.findall(r" VERSION=(\S+)", made) == re.findall(r"--version (\S+)", installed) == [VERSION]


def test_the_chart_in_the_registry_is_the_file(release: Release, tmp_path: Path) -> None:
    where = f"oci://{release.registry}/charts/{NAME}"
    pull = (tool("helm"), "pull", where, "--version", VERSION, "--destination", str(tmp_path))
    printed(*pull, env=release.variables)

    assert (tmp_path / release.chart.name).read_bytes() == release.chart.read_bytes()
    printed(tool("helm"), "lint", "--strict", release.chart)
    # A link would lead nowhere.
    assert content(release.chart, f"{NAME}/files/crd.yaml")
    readme = content(release.chart, f"{NAME}/README.md").decode()
    assert f"({SOURCE_URL}/blob/v{VERSION}/docs/" in readme
    assert "](../" not in readme


def test_a_second_time_it_is_the_same(release: Release, tmp_path: Path) -> None:
    again = release.make(output=tmp_path / "again")

    assert again.returncode == 0, again.stderr
    assert again.stderr.count(" is there already\n") == 3
    for path in release.folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_is_published_never_changes(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", release.variables["SSL_CERT_FILE"])
    wish = Wish(VERSION, release.registry)
    before = release.digest(NAME)

    with pytest.raises(Refused, match=f"{NAME}:{VERSION} is published already, with other content"):
        registry.push(wish, [Image(NAME, tmp_path, f"sha256:{0:064}", {})], release.chart)
    other = tmp_path / release.chart.name
    other.write_bytes(release.chart.read_bytes() + b" ")
    with pytest.raises(Refused, match=f"/charts/{NAME}:{VERSION} is published already, with other content"):
        registry.push(wish, [], other)
    assert release.digest(NAME) == before


def test_a_registry_that_does_not_answer(release: Release, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"crane manifest 127\.0\.0\.1:1/team/"):
        registry.push(Wish(VERSION, "127.0.0.1:1/team"), [Image(NAME, tmp_path, "", {})], release.chart)


def test_a_platform_that_was_asked_for_is_not_left_out(release: Release, tmp_path: Path) -> None:
    done = release.make(output=tmp_path / "none", PLATFORMS="linux/nonesuch")

    assert done.returncode != 0
    assert "error: PLATFORMS names linux/nonesuch, but this machine cannot build for it: " in done.stderr
    assert not (tmp_path / "none").exists()


def test_other_files_are_not_deleted(release: Release, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    done = release.make(output=tmp_path)

    assert done.returncode != 0
    assert "has files that are not of a release: name another folder" in done.stderr
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("image", IMAGES)
def test_the_bills_of_materials(release: Release, image: str) -> None:
    python = release.folder / f"{image}-{VERSION}-python.cdx.json"
    debian = release.folder / f"{image}-{VERSION}-linux-amd64-debian.cdx.json"
    for path in (python, debian):
        bill = json.loads(path.read_text())
        schema = SchemaVersion.from_version(bill["specVersion"])
        assert JsonStrictValidator(schema).validate_str(path.read_text()) is None

    lock = "requirements/operator.txt" if image == NAME else "worker-image/requirements.txt"
    locked = dict(
        re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    )
    bill = json.loads(python.read_text())
    assert {part["name"]: part["version"] for part in bill["components"]} == locked
    assert locked["django"]
    debians = {part["name"] for part in json.loads(debian.read_text())["components"]}
    assert {"python3", "libc6", "ca-certificates"} <= debians

    spdx = parse_file(str(debian.with_suffix("").with_suffix(".spdx.json")))
    assert validate_full_spdx_document(spdx) == []
    assert {"python3", "libc6"} <= {package.name for package in spdx.packages}


def test_the_provenance_is_of_these_files(release: Release) -> None:
    statement = json_format.ParseDict(release.provenance, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    # It refuses fields that it does not know.
    predicate = json_format.ParseDict(release.provenance["predicate"], provenance_pb2.Provenance())
    assert predicate.build_definition.build_type
    assert predicate.run_details.builder.id

    subjects = {one["name"]: one["digest"]["sha256"] for one in release.provenance["subject"]}
    lines = (release.folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    del sums["provenance.intoto.json"]
    images = {
        f"{release.registry}/{image}": release.digest(image).removeprefix("sha256:") for image in IMAGES
    }
    assert subjects == sums | images
    (dependency,) = release.provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    commit = printed("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    assert dependency == {"uri": f"git+{SOURCE_URL}@{commit}", "digest": {"gitCommit": commit}}


PACKAGES = {
    "django_task_operator": ("operator", "operator/django_task_operator"),
    "django_db_worker": ("worker-image", "worker-image/django_db_worker"),
}


def wheel(release: Release, package: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(release.folder / f"{package}-{VERSION}-py3-none-any.whl")


def test_a_package_index_takes_the_packages(release: Release) -> None:
    packages = [*release.folder.glob("*.whl"), *release.folder.glob("*.tar.gz")]

    assert len(packages) == 4
    printed(sys.executable, "-m", "twine", "check", "--strict", *packages)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_has_the_packages_files_and_no_others(release: Release, package: str) -> None:
    _, folder = PACKAGES[package]
    tracked = {
        str(Path(path).relative_to(folder)) for path in printed("git", "ls-files", folder, cwd=ROOT).split()
    }
    with wheel(release, package) as archive:
        contents = {name for name in archive.namelist() if ".dist-info/" not in name}
        texts = {name: archive.read(name) for name in contents}

    assert contents == {f"{package}/{path}" for path in tracked}
    assert f"{package}/py.typed" in contents
    for name, text in texts.items():
        assert text == (ROOT / folder).parent.joinpath(name).read_bytes()


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_index_shows(release: Release, package: str) -> None:
    with wheel(release, package) as archive:
        text = archive.read(f"{package}-{VERSION}.dist-info/METADATA").decode()
        assert f"{package}-{VERSION}.dist-info/licenses/LICENSE" in archive.namelist()
    shown = message_from_string(text)

    assert shown["Version"] == VERSION
    assert shown["License-Expression"] == "Apache-2.0"
    assert shown["Summary"]
    assert shown["Requires-Python"].startswith(">=3.1")
    assert {"Framework :: Django", "Typing :: Typed"} <= set(shown.get_all("Classifier", []))
    assert f"Source, {SOURCE_URL}" in shown.get_all("Project-URL", [])
    assert shown["Description-Content-Type"] == "text/markdown"
    page = str(shown.get_payload())
    assert not re.search(r"\]\((?!https?:|#)", page), "a link that leads nowhere from a package index"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_source_package_has_no_tests(release: Release, package: str) -> None:
    found = {name.partition("/")[2] for name in names(release.folder / f"{package}-{VERSION}.tar.gz")}

    assert {"LICENSE", "README.md", "pyproject.toml"} <= found
    assert not [name for name in found if name.startswith("tests") or "test_" in name]
