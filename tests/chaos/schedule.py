"""The fault schedule: one seed, one sequence of rounds. A round is one fault, or two that take hold of different things at once."""

import collections
import random

import faults

Step = collections.namedtuple("Step", "kind arguments")

# What two faults at once may take hold of. A broker that is down answers nothing whose answer could be lost.
TOGETHER = ({"service", "database"}, {"service", "kafka"}, {"service", "load"}, {"guest", "database"}, {"guest", "kafka"}, {"guest", "service"},
            {"broker", "database"}, {"database", "load"}, {"service", "broker"}, {"guest", "broker"}, {"kafka", "database"}, {"kafka", "load"},
            {"service+kafka", "database"})
# A COMMIT of the audit chain comes only when the log answers; what waits for one does not share its round with the log's absence.
WAITS_FOR_COMMITS = {"database_crash_in_commit", "database_backend_kill", "database_commit_answer_lost", "database_connections_reset", "disk_full"}


def step(rng, kind):
    arguments = {}
    for name, choice in faults.FAULTS[kind][2].items():
        if isinstance(choice, tuple) and len(choice) == 2 and all(isinstance(end, float | int) for end in choice):
            arguments[name] = round(rng.uniform(*choice), 2)
        else:
            arguments[name] = rng.choice(choice)
    return Step(kind, arguments)


def compatible(one, other):
    takes = {faults.FAULTS[one][1], faults.FAULTS[other][1]}
    return takes in TOGETHER and not ("broker" in takes and {one, other} & WAITS_FOR_COMMITS)


def rounds(seed):
    """Endless: every kind once in each cycle, in another order and in other company; (pause before it in s, [steps])."""
    rng = random.Random(seed)
    while True:
        kinds = sorted(faults.FAULTS)
        rng.shuffle(kinds)
        while kinds:
            kind = kinds.pop()
            chosen = [step(rng, kind)]
            partner = next((other for other in kinds if compatible(kind, other)), None)
            if partner and rng.random() < 0.9:
                kinds.remove(partner)
                chosen.append(step(rng, partner))
            yield round(rng.uniform(0.1, 0.9), 2), chosen, not kinds


def cycle(seed):
    """The first cycle of a seed."""
    found = []
    for pause_s, steps, last in rounds(seed):
        found.append((pause_s, steps))
        if last:
            return found


def text(number, pause_s, steps):
    said = " + ".join(step.kind + "".join(f" {name}={value}" for name, value in step.arguments.items()) for step in steps)
    return f"{number:4d}  after {pause_s:.2f} s  {said}"
