#!/usr/bin/env python3
"""Checks scores of the preference judgements against the published board: win rates, standard errors, order.

    alpaca_check.py BOARD.csv SCORES.json [--scoreboard SCOREBOARD.json] [--metric win]

SCORES.json: AgentScore rows; of each agent, the row with the most samples counts. Exit 0, or 7 with what differs.
"""
import argparse
import csv
import json
import math

WIN_RATE, STANDARD_ERROR = 1e-5, 1e-6


def published(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def widest_rows(scores):
    rows = {}
    for row in scores:
        if row["agentId"] not in rows or row["samples"] > rows[row["agentId"]]["samples"]:
            rows[row["agentId"]] = row
    return rows


def check(board, scores, metric, scoreboard=None):
    problems, worst_rate, worst_error = [], 0.0, 0.0
    rows = widest_rows(scores)
    for model in board.keys() ^ rows.keys():
        problems.append(f"{model}: only in the {'board' if model in board else 'scores'}")
    for model in sorted(board.keys() & rows.keys()):
        part = next((c for c in rows[model]["components"] if c["metric"] == metric), None)
        if part is None or part["variance"] is None:
            problems.append(f"{model}: no mean and variance of {metric}")
            continue
        rate = abs(part["mean"] * 100 - float(board[model]["win_rate"]))
        error = abs(100 * math.sqrt(part["variance"] / part["count"]) - float(board[model]["standard_error"]))
        worst_rate, worst_error = max(worst_rate, rate), max(worst_error, error)
        if not rate <= WIN_RATE:
            problems.append(f"{model}: win rate {part['mean'] * 100}, published {board[model]['win_rate']}")
        if not error <= STANDARD_ERROR:
            problems.append(f"{model}: standard error off by {error:.3g}, published {board[model]['standard_error']}")
        if part["count"] != int(board[model]["n_total"]):
            problems.append(f"{model}: {part['count']} judgements, published {board[model]['n_total']}")
    wanted = sorted(board, key=lambda model: (-float(board[model]["win_rate"]), model))
    orders = {"order by score": sorted((a for a in rows if rows[a]["score"] is not None), key=lambda a: (-rows[a]["score"], a))}
    if scoreboard is not None:
        orders["scoreboard"] = [row["agentId"] for row in sorted(scoreboard, key=lambda row: row["rank"])]
    for name, order in orders.items():
        for rank, (want, got) in enumerate(zip(wanted, order), 1):
            if want != got:
                problems.append(f"{name}: rank {rank} is {got}, published {want}")
                break
        if len(order) != len(wanted):
            problems.append(f"{name}: {len(order)} models, published {len(wanted)}")
    return problems, worst_rate, worst_error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("board")
    parser.add_argument("scores")
    parser.add_argument("--scoreboard", help="a scoreboard document whose order is checked too")
    parser.add_argument("--metric", default="win")
    options = parser.parse_args()
    with open(options.scores, encoding="utf-8") as file:
        scores = json.load(file)
    scoreboard = None
    if options.scoreboard:
        with open(options.scoreboard, encoding="utf-8") as file:
            scoreboard = json.load(file)
    board = published(options.board)
    problems, worst_rate, worst_error = check(board, scores, options.metric, scoreboard)
    for problem in problems:
        print(problem)
    print(f"{len(board)} models, largest difference: win rate {worst_rate:.3g}, standard error {worst_error:.3g}, "
          f"{len(problems)} problems")
    if problems or not board:
        raise SystemExit(7)


if __name__ == "__main__":
    main()
