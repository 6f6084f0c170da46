# SPDX-License-Identifier: Apache-2.0
"""Checks the output of `antipode routes --json` against linear programs solved by glpsol.

usage: routes_lp.py LINKS.csv ROUTES.json [exact]
1. Over the trees that were printed: no other rates for them give noticeably more than the rates printed.
2. The printed prices are a dual solution: the cheapest column at them, found as a linear program over flows (an
   arborescence costs what the flows from its root to every site, sharing the links, cost at least), is not below 1.
3. exact: the optimum over all columns there are, as one program: for each root a part of each link for its in-trees and
   one for its out-trees, through which every other site can send or receive the root's rate (Edmonds' branching theorem).
   It must lie between what was achieved and the bound.
"""
import csv
import json
import subprocess
import sys
import tempfile


def solve(objective, sense, rows):
    """Optimum of a program in CPLEX LP format; variables are >= 0. rows: (text, relation, number)."""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/p.lp", "w") as f:
            f.write(sense + "\n obj: " + wrap(objective) + "\nSubject To\n")
            for k, (text, relation, number) in enumerate(rows):
                f.write(f" r{k}: {wrap(text)} {relation} {number!r}\n")
            f.write("End\n")
        done = subprocess.run(["glpsol", "--lp", folder + "/p.lp", "--write", folder + "/out", "--tmlim", "300"],
                              capture_output=True, text=True)
        if done.returncode != 0 or "PROBLEM HAS NO" in done.stdout:
            sys.exit("glpsol: " + done.stdout)
        for line in open(folder + "/out"):
            if line.startswith("s bas "):
                word = line.split()
                if word[4:6] != ["f", "f"]:
                    sys.exit("glpsol found no optimum: " + line)
                return float(word[6])
    sys.exit("glpsol failed: " + done.stdout)


def wrap(terms):
    """Terms on lines of their own (the format limits lines), each variable once (glpsol wants that)."""
    total = {}
    for c, v in terms:
        total[v] = total.get(v, 0.0) + c
    terms = [(c, v) for v, c in total.items()]
    return "\n  ".join(f"{'+' if c >= 0 else '-'} {abs(c)!r} {v}" for c, v in terms)


def read(links, routes):
    """Capacities of links by (i, j), of egress and ingress by i (empty without site caps)."""
    index = {name: i for i, name in enumerate(routes["sites"])}
    cap = {}
    lines = (line for line in open(links) if line.strip() and not line.startswith("#"))
    for row in csv.DictReader(lines):
        i, j, rate = index[row["src"]], index[row["dst"]], float(row["gbit_per_s"])
        cap[i, j] = rate
        if not routes["directed"]:
            cap[j, i] = rate
    n = len(index)
    if routes["caps"] == "pair":
        return index, cap, {}, {}
    return (index, cap, {i: max(c for (a, _), c in cap.items() if a == i) for i in range(n)},
            {i: max(c for (_, b), c in cap.items() if b == i) for i in range(n)})


def tree_loads(tree, index, opaque):
    """Units that one unit of a column puts on each link."""
    load, up = {}, {index[a]: index[b] for a, b in tree["in"]}
    for v in up:
        u = v
        while u in up:
            load[u, up[u]] = load.get((u, up[u]), 0) + 1 if opaque or u == v else load.get((u, up[u]), 0)
            u = up[u]
        assert u == index[tree["root"]], "an in-tree that does not end at the root"
    reached = {index[tree["root"]]}
    edges = [(index[a], index[b]) for a, b in tree["out"]]
    while any(a in reached and b not in reached for a, b in edges):
        reached |= {b for a, b in edges if a in reached}
    assert len(reached) == len(index) == len(edges) + 1 == len(up) + 1, "not a spanning tree"
    for e in edges:
        load[e] = load.get(e, 0) + 1
    return load


def capacity_rows(loads, cap, egress, ingress):
    """Rows 'sum of what is used <= capacity'; loads: link -> list of terms."""
    rows = [(loads[e], "<=", cap[e]) for e in cap if loads.get(e)]
    for i, c in egress.items():
        rows.append(([t for e, terms in loads.items() if e[0] == i for t in terms], "<=", c))
    for i, c in ingress.items():
        rows.append(([t for e, terms in loads.items() if e[1] == i for t in terms], "<=", c))
    return rows


def flows(n, cap, root, part, rate, towards, rows):
    """Rows: a flow of `rate` (a term list, or a number) from every site to root (or back) inside of part[link]."""
    for v in range(n):
        if v == root:
            continue
        source, sink = (v, root) if towards else (root, v)
        for e in cap:
            rows.append(([(1.0, f"{part}f{v}_{e[0]}_{e[1]}"), (-1.0, f"{part}_{e[0]}_{e[1]}")], "<=", 0.0))
        for u in range(n):
            if u == sink:
                continue
            terms = [(1.0, f"{part}f{v}_{a}_{b}") for a, b in cap if a == u]
            terms += [(-1.0, f"{part}f{v}_{a}_{b}") for a, b in cap if b == u]
            if u != source:
                rows.append((terms, "=", 0.0))
            elif isinstance(rate, str):
                rows.append((terms + [(-1.0, rate)], "=", 0.0))
            else:
                rows.append((terms, "=", rate))


def optimum(n, cap, egress, ingress):
    rows, loads = [], {e: [] for e in cap}
    for r in range(n):
        for part, towards in ((f"g{r}", True), (f"h{r}", False)):
            flows(n, cap, r, part, f"y{r}", towards, rows)
            for e in cap:
                loads[e].append((1.0, f"{part}_{e[0]}_{e[1]}"))
    return solve([(1.0, f"y{r}") for r in range(n)], "Maximize", rows + capacity_rows(loads, cap, egress, ingress))


def cheapest(n, cap, cost):
    least = float("inf")
    for r in range(n):
        total = 0.0
        for towards in (True, False):
            rows = []
            flows(n, cap, r, "p", 1.0, towards, rows)
            total += solve([(cost[e], f"p_{e[0]}_{e[1]}") for e in cap], "Minimize", rows)
        least = min(least, total)
    return least


def main():
    links, path = sys.argv[1:3]
    routes = json.load(open(path))
    index, cap, egress, ingress = read(links, routes)
    n, opaque = len(index), routes["codec"] == "opaque"

    loads = {e: [] for e in cap}
    used = {e: 0.0 for e in cap}
    for k, tree in enumerate(routes["trees"]):
        for e, units in tree_loads(tree, index, opaque).items():
            loads[e].append((float(units), f"x{k}"))
            used[e] += units * tree["gbit_per_s"]
    for e in cap:
        assert used[e] <= cap[e] * (1 + 1e-9), f"link {e} carries {used[e]} of {cap[e]}"
    for i in egress:
        assert sum(u for e, u in used.items() if e[0] == i) <= egress[i] * (1 + 1e-9), f"egress of {i}"
        assert sum(u for e, u in used.items() if e[1] == i) <= ingress[i] * (1 + 1e-9), f"ingress of {i}"
    achieved, bound = routes["gbit_per_s"], routes["bound_gbit_per_s"]
    assert abs(sum(t["gbit_per_s"] for t in routes["trees"]) / achieved - 1) < 1e-9
    best = solve([(1.0, f"x{k}") for k in range(len(routes["trees"]))], "Maximize",
                 capacity_rows(loads, cap, egress, ingress))
    print(f"{path}: achieved {achieved:.6f}, program over the trees {best:.6f}, bound {bound:.6f}")
    assert abs(best / achieved - 1) < 1e-5, "the rates are not the best for these trees"

    price = {(index[a], index[b]): p for a, b, p in routes["certificate"]["links"]}
    out = {index[a]: p for a, p in routes["certificate"]["egress"]}
    into = {index[a]: p for a, p in routes["certificate"]["ingress"]}
    total = sum(cap[e] * p for e, p in price.items())
    total += sum(egress[i] * p for i, p in out.items()) + sum(ingress[i] * p for i, p in into.items())
    assert abs(total / bound - 1) < 1e-9 and min([*price.values(), *out.values(), *into.values(), 0]) >= 0
    if not opaque:
        least = cheapest(n, cap, {(i, j): price.get((i, j), 0) + out.get(i, 0) + into.get(j, 0) for i, j in cap})
        print(f"  cheapest column {least:.9f}")
        assert least > 1 - 1e-6, "the bound does not hold"
    if "exact" in sys.argv[3:]:
        truth = optimum(n, cap, egress, ingress)
        print(f"  optimum over all columns {truth:.6f}: achieved {achieved / truth:.6f} of it")
        assert achieved <= truth * (1 + 1e-6) and truth <= bound * (1 + 1e-6), "the optimum is not between them"


main()
