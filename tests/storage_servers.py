"""Local servers: S3 (moto) and SSH (asyncssh) for DVC's remotes, a proxy that fails, PostgreSQL.

with s3_server("bucket") as environment:         # the variables that DVC needs
    subprocess.run(["dvc", "push"], env={**os.environ, **environment})
"""

import asyncio
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh
import boto3
from moto.core.authorization import enable_iam_authentication
from moto.server import ThreadedMotoServer

_EVERYTHING_IN_S3 = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, str]]:
    """An S3 server with one bucket that checks signatures; yields the environment of a user."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",  # do not look for a key in the cloud
        "AWS_MAX_ATTEMPTS": "1",  # fail at once
    }
    administrator = boto3.Session("any", "thing", region_name="us-east-1")
    iam = administrator.client("iam", endpoint_url=environment["AWS_ENDPOINT_URL"])
    s3 = administrator.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
    s3.create_bucket(Bucket=bucket)
    iam.create_user(UserName="user")
    policy = json.dumps({"Version": "2012-10-17", **_EVERYTHING_IN_S3})
    iam.put_user_policy(UserName="user", PolicyName="s3", PolicyDocument=policy)
    key = iam.create_access_key(UserName="user")["AccessKey"]
    environment["AWS_ACCESS_KEY_ID"] = key["AccessKeyId"]
    environment["AWS_SECRET_ACCESS_KEY"] = key["SecretAccessKey"]
    try:
        with enable_iam_authentication():
            yield environment
    finally:
        server.stop()


@contextmanager
def cut_line(target: tuple[str, int], limit: int) -> Iterator[tuple[str, int]]:
    """A TCP proxy that closes all connections after `limit` bytes have been sent to `target`."""
    left = limit

    def forward(client: socket.socket) -> None:
        nonlocal left
        with client, socket.create_connection(target) as server, suppress(OSError):
            while True:
                for sender in select.select([client, server], [], [])[0]:
                    content = sender.recv(65536)
                    left -= len(content) if sender is client else 0
                    if not content or left < 0:
                        return
                    (server if sender is client else client).sendall(content)

    def accept() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                threading.Thread(target=forward, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()


@contextmanager
def ssh_server(home: Path, root: Path) -> Iterator[None]:
    """An SFTP server for the directory `root` that accepts one key.

    The key and a `config` that names the server `storage` are written to `home/.ssh`.
    """
    directory = home / ".ssh"
    directory.mkdir(parents=True, mode=0o700)
    key, host_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key.write_private_key(directory / "id_ed25519")
    key.write_public_key(directory / "id_ed25519.pub")

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=str(directory / "id_ed25519.pub"),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=bytes(root)),
        )

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    port = server.get_port()
    (directory / "config").write_text(
        f"Host storage\n  HostName 127.0.0.1\n  Port {port}\n  User user\n", encoding="utf-8"
    )
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)


@contextmanager
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL server on the loopback; yields the URL of an empty database for SQLAlchemy."""
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    program = shutil.which("pg_ctl")
    assert program
    programs = Path(program).resolve().parent
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
        unused.close()
        if user:
            shutil.chown(name, user)

        def run(program: str, *options: str) -> None:
            subprocess.run(
                [programs / program, "-D", f"{name}/data", *options],
                cwd=name,
                user=user,
                stdout=subprocess.DEVNULL,
                check=True,
            )

        run("initdb", "--auth=trust", "--username=postgres", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {name} -c fsync=off"
        run("pg_ctl", "start", "--wait", "-l", f"{name}/log", "-o", options)
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
