"""The processes of the local cluster."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.cluster.local_cluster import HADOOP, PIDS_PER_CLUSTER, LocalCluster, cluster_command


@pytest.mark.hadoop
def test_status_shows_every_process_with_its_page(cluster: LocalCluster) -> None:
    shown = cluster.command("status")
    assert shown.returncode == 0, shown.stdout
    for name, pid in cluster.pids.items():
        (line,) = [line for line in shown.stdout.splitlines() if line.startswith(name)]
        key = f"{name.upper().replace('-', '_')}_WEB_PORT"
        assert f"pid {pid} " in line
        assert f"http://127.0.0.1:{cluster.ports[key]}" in line
    assert len(cluster.pids) == PIDS_PER_CLUSTER
    assert "HDFS: out of safe mode, 2 DataNodes live" in shown.stdout
    assert "YARN: 2 NodeManagers live" in shown.stdout


@pytest.mark.hadoop
def test_nothing_listens_beyond_this_machine(cluster: LocalCluster) -> None:
    for name, pid in cluster.pids.items():
        connections = psutil.Process(pid).net_connections("tcp")
        listening = {
            connection.laddr.ip
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening, name
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}, name


@pytest.mark.hadoop
def test_a_second_start_is_reported_and_starts_nothing(cluster: LocalCluster) -> None:
    before = cluster.pids
    again = cluster.command("up", "--free-ports")
    assert again.returncode == 0
    assert "runs already" in again.stderr
    assert cluster.pids == before


@pytest.mark.hadoop
def test_a_process_that_died_is_shown_and_started_again_alone(cluster: LocalCluster) -> None:
    before = cluster.pids
    os.kill(before["nodemanager-2"], signal.SIGKILL)
    shown = cluster.command("status")
    assert shown.returncode == 3
    assert "nodemanager-2    does not run" in shown.stdout
    assert cluster.command("up", "--free-ports").returncode == 0
    changed = {name for name, pid in cluster.pids.items() if before[name] != pid}
    assert changed == {"nodemanager-2"}
    node = psutil.Process(cluster.pids["nodemanager-2"])
    listening = {
        connection.laddr.port
        for connection in node.net_connections("tcp")
        if connection.status == "LISTEN"
    }
    assert cluster.ports["NODEMANAGER_2_PORT"] in listening


def test_a_taken_port_is_named_with_the_key_that_moves_it(tmp_path: Path) -> None:
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", 8088))
            server.listen()
        except OSError:
            pass  # a cluster of the developer's: as good
        done = cluster_command(tmp_path, "up")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "8088 (RESOURCEMANAGER_WEB_PORT)" in line
    assert line.endswith("ports.conf")
    assert not list((tmp_path / "pids").glob("*node*"))


def test_a_missing_port_is_named(tmp_path: Path) -> None:
    ports = re.sub("NAMENODE_WEB_PORT=.*", "", (HADOOP / "ports.conf").read_text())
    (tmp_path / "ports.conf").write_text(ports)
    done = cluster_command(tmp_path, "status")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "ports.conf: no port for the key 'NAMENODE_WEB_PORT'" in line


def test_an_invalid_port_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "ports.conf").write_text("# x\n\nNAMENODE_PORT=http\n")
    done = cluster_command(tmp_path, "status")
    assert done.returncode == 2
    assert "ports.conf:3: wanted KEY=PORT; got 'NAMENODE_PORT=http'" in done.stderr


def test_status_and_down_without_a_cluster(tmp_path: Path) -> None:
    shown = cluster_command(tmp_path, "status")
    assert shown.returncode == 3
    assert shown.stdout.count("does not run") == PIDS_PER_CLUSTER
    assert cluster_command(tmp_path, "down").returncode == 0


def test_down_stops_the_recorded_process_and_no_other_with_its_pid(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]  # noqa: S607
    try:
        ours, other = sleepers
        started = [Path(f"/proc/{it.pid}/stat").read_text().split()[21] for it in sleepers]
        (tmp_path / "pids" / "namenode").write_text(f"{ours.pid} {started[0]}\n")
        (tmp_path / "pids" / "datanode-1").write_text(f"{other.pid} {int(started[1]) - 1}\n")
        assert cluster_command(tmp_path, "down").returncode == 0
        assert ours.wait(5) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
