"""A worker: isolates itself, loads the author's class, and serves requests until told to stop."""

import faulthandler
import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from hearth_runtime import isolation, logs
from hearth_runtime.control import ControlSocket
from hearth_runtime.function import Function
from hearth_runtime.house import House
from hearth_runtime.serving import Server

#: Environment variable that carries the launch to an interpreter started afresh.
LAUNCH_VARIABLE = "HEARTH_LAUNCH"
CONTROL_DESCRIPTOR = 3


def isolate(launch: dict[str, Any], missing: dict[str, str]) -> None:
    """Applies what this machine has of isolation, and sets the environment."""
    limits = isolation.Limits(
        directory=launch["directory"],
        network=launch["network"],
        memory_bytes=launch.get("memory_bytes"),
        temporary_bytes=launch["temporary_bytes"],
        visible=(
            launch["bundle"],
            _environment_of(launch),
            os.path.dirname(os.path.abspath(__file__)),
            sys.prefix,
            *launch["visible"],
        ),
        hidden=launch["hidden"],
        writes_directory=launch.get("command") is not None,
    )
    isolation.apply(limits, missing)
    temporary = f"{launch['directory']}/tmp"
    os.environ.update(launch["environment"])
    os.environ.update(TMPDIR=temporary, HOME=temporary, HEARTH_BUNDLE=launch["bundle"])
    os.environ.update(HEARTH_FUNCTION=launch["function"], HEARTH_WORKER=launch["worker"])
    os.chdir(launch["bundle"])


def _environment_of(launch: dict[str, Any]) -> str:
    """The folder of the interpreter's environment: bin/python lies in it."""
    return os.path.dirname(os.path.dirname(launch.get("python") or sys.executable))


def enter(launch: dict[str, Any], control: socket.socket) -> None:
    """Serves as the launch says: here, in a fresh interpreter, or as another program."""
    if launch.get("command") is not None:
        _become_command(launch)
    elif launch["fork"]:
        serve(launch, control)
    else:
        environment = {**os.environ, LAUNCH_VARIABLE: json.dumps(launch)}
        os.set_inheritable(CONTROL_DESCRIPTOR, True)
        main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
        python = launch["python"] or sys.executable
        # The zygote's own flags decide which packages are visible.
        flags = ["-I", "-S"] if sys.flags.no_site else ["-I"]
        os.execve(python, [python, *flags, main, "worker"], environment)


def _become_command(launch: dict[str, Any]) -> NoReturn:
    command: list[str] = launch["command"]
    os.environ["HEARTH_SOCKET"] = f"{launch['directory']}/http.sock"
    os.environ["HEARTH_CONFIG"] = launch["config"]
    os.close(CONTROL_DESCRIPTOR)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    # A program in the bundle by its path, any other by PATH.
    program = os.path.join(launch["bundle"], command[0])
    if os.path.isfile(program):
        os.execve(program, command, dict(os.environ))
    os.execvpe(command[0], command, dict(os.environ))


def main_of_spawned() -> None:
    """Entry of an interpreter started afresh: isolation and environment are already in place."""
    launch = json.loads(os.environ.pop(LAUNCH_VARIABLE))
    serve(launch, socket.socket(fileno=CONTROL_DESCRIPTOR))


def serve(launch: dict[str, Any], connection: socket.socket) -> None:
    """Loads the function and serves it. Returns after a failed load; otherwise the process ends inside."""
    logs.install()
    faulthandler.enable()
    control = ControlSocket(connection)
    control.send({"type": "loading"})
    function = Function(launch, control)
    if launch["awaits_model"]:
        if not function.prepare():
            return
        if launch["shared"]:
            House(function, control, slots=launch["slots"]).run()
        function.expect(_model_to_load(control))
    if function.load():
        Server(function, control, slots=launch["slots"]).run(control)


def _model_to_load(control: ControlSocket) -> dict[str, Any]:
    """Waits until the gateway says which model this worker is for; ends with it, or when it is not needed."""
    while (message := control.receive()) is not None:
        if message.get("type") == "load":
            os.environ["HEARTH_WORKER"] = message["worker"]
            model: dict[str, Any] = message["model"]
            return model
        if message.get("type") == "drain":
            break
    os._exit(0)
