"""The simulated arm in lock-step: physics passes exactly as far as the clock that it is read with."""

from vla_bench_envs.robot.driver import Caps, DriverSpec, RobotState
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.tabletop.plant import Plant
from vla_bench_envs.robot.tabletop.tasks import TASKS

CAPS = Caps(moves=True, places_objects=True, knows_success=True)


class SimulatedArm:
    """A plant in this process; bit-identical between runs when the clock is virtual."""

    def __init__(self, limits: Limits) -> None:
        """Compile the plant."""
        self.plant = Plant(limits)

    @property
    def spec(self) -> DriverSpec:
        """Return who it is."""
        return DriverSpec("sim-lockstep", self.plant.limits.arm, tuple(task.name for task in TASKS))

    @property
    def caps(self) -> Caps:
        """Return what it can do: everything."""
        return CAPS

    def connect(self, now_ns: int) -> None:
        """Let physics begin now."""
        self.plant.t_ns = now_ns

    def read(self, now_ns: int) -> RobotState:
        """Let physics pass until now, and return what the arm measures."""
        self.plant.advance(now_ns)
        return self.plant.state()

    def command(self, set_point: SetPoint) -> None:
        """Aim at a set-point."""
        self.plant.aim(set_point)

    def hold(self) -> None:
        """Stand where the arm is."""
        self.plant.hold()

    def stop(self) -> None:
        """Stand, and ignore set-points until `recover`."""
        self.plant.hold()
        self.plant.stopped = True

    def home(self) -> None:
        """Do nothing: this gripper needs no reference."""

    def recover(self) -> None:
        """Take set-points again."""
        self.plant.hold()
        self.plant.stopped = False

    def begin(self, task: int, init_state: int) -> str:
        """Place arm and things."""
        return self.plant.begin(task, init_state)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
