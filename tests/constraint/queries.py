"""Random schemas with odd names, and random queries over them that SQLite mostly compiles."""

import sqlite3

from text2sql.example import Column, Schema, Table

NAMES = [
    "id", "name", "order", "group", "end", "cast", "Year", "x y", 'q"uote', "back`tick", "a]b", "имя", "名前", "select", "T1",
    "count", "1st", "a$b", "key", "T.x", "it's", "",
]  # fmt: skip


def schema(rng):
    tables = rng.sample([name for name in NAMES if name], rng.randint(1, 4))
    return Schema(
        tuple(
            Table(name, tuple(Column(c) for c in rng.sample([n for n in NAMES if n], rng.randint(1, 5))))
            for name in tables
        )
    )


def build(made):
    connection = sqlite3.connect(":memory:")
    for table in made.tables:
        columns = ", ".join('"' + column.name.replace('"', '""') + '"' for column in table.columns)
        connection.execute('CREATE TABLE "{}" ({})'.format(table.name.replace('"', '""'), columns))
    return connection


class Writer:
    """Writes a query; the sources in sight are (name, columns) pairs."""

    def __init__(self, made, rng):
        self.made, self.rng, self.depth = made, rng, 0

    def name(self, name):
        ways = ['"' + name.replace('"', '""') + '"', "`" + name.replace("`", "``") + "`"]
        ways += [f"[{name}]"] * ("]" not in name) + [name, name.upper()] * name.isascii() * name.isalpha()
        return self.rng.choice(ways)

    def query(self, outer=()):
        rng = self.rng
        self.depth += 1
        text, columns = self.select(outer)
        if rng.random() < 0.15:
            text += (
                rng.choice([" UNION ", " union all ", " INTERSECT ", " EXCEPT "]) + self.select(outer, len(columns))[0]
            )
        elif rng.random() < 0.4:
            text += f" ORDER BY {rng.randint(1, len(columns))} " + rng.choice(["", "DESC", "asc NULLS LAST"])
        if rng.random() < 0.2:
            text += rng.choice([" LIMIT 3", " LIMIT 1, 2", " limit 5 OFFSET 1"])
        self.depth -= 1
        return text, columns

    def source(self, outer, number):
        rng = self.rng
        alias = rng.choice([f"T{number}", f"t{number}", "s" + str(number)])
        if rng.random() < 0.2 and self.depth < 3:
            text, columns = self.query(outer)
            return f"({text}) {rng.choice(['AS ', ''])}{alias}", (alias, columns)
        table = rng.choice(self.made.tables)
        columns = [column.name for column in table.columns]
        if rng.random() < 0.3:
            return self.name(table.name), (table.name, columns)
        return f"{self.name(table.name)} {rng.choice(['AS ', 'as ', ''])}{alias}", (alias, columns)

    def select(self, outer, width=None):
        rng = self.rng
        texts, sources = zip(*(self.source(outer, n + 1) for n in range(rng.choice([1, 1, 2, 3]))))
        start = texts[0]
        for n, text in enumerate(texts[1:], 2):
            join = rng.choice([", ", " JOIN ", " LEFT OUTER JOIN ", " inner join ", " NATURAL JOIN "])
            shared = [c for c in sources[n - 1][1] if c and any(c in columns for _, columns in sources[: n - 1])]
            start += join + text
            if "JOIN" in join.upper() and "NATURAL" not in join:
                if shared and rng.random() < 0.3:
                    start += f" USING ({self.name(rng.choice(shared))})"
                elif rng.random() < 0.7:
                    start += f" ON {self.condition(sources[:n], outer)}"
        seen = list(sources)
        items, columns = [], []
        for n in range(width or rng.randint(1, 3)):
            item = self.column(seen, ())
            name = item[1]
            choice = rng.random()
            if choice < 0.3:
                name = rng.choice(["n", "Total Sales", "x1"]) + str(n)
                items.append(f"{self.value(seen, outer)} {rng.choice(['AS ', ''])}{self.name(name)}")
            elif choice < 0.4 and not width:
                items.append("count(*)")
                name = ""
            else:
                items.append(item[0])
            columns.append(name)
        text = f"{rng.choice(['SELECT', 'select', 'SELECT DISTINCT'])} {' , '.join(items)} FROM {start}"
        if rng.random() < 0.5:
            text += f" WHERE {self.condition(seen, outer)}"
        if rng.random() < 0.3:
            text += f" GROUP BY {self.column(seen, ())[0]}" + rng.choice(["", " HAVING count(*) >= 2"])
        return text, columns

    def column(self, sources, outer):
        rng = self.rng
        pairs = [(q, c) for q, columns in (*sources, *outer) for c in columns if c]
        if not pairs:
            return "1", ""
        qualifier, column = rng.choice(pairs)
        unique = sum(c.lower() == column.lower() for _, c in pairs) == 1
        if unique and rng.random() < 0.5:
            return self.name(column), column
        return f"{self.name(qualifier)}.{self.name(column)}", column

    def value(self, sources, outer):
        rng, column = self.rng, self.column(sources, outer)[0]
        if rng.random() < 0.1 and self.depth < 3:
            return f"({self.select((*sources, *outer), 1)[0]})"
        return rng.choice([
            column, column, f"max({column})", f"count(DISTINCT {column})", f"CAST({column} AS INTEGER)", f"{column} || 'it''s'",
            f"CASE WHEN {column} > 1.5e3 THEN 'a' ELSE {column} END", f"coalesce({column}, \"no name\")", f"-{column} * 2",
            f"CASE {column} WHEN 'x' THEN 1 END", f"rank() OVER (PARTITION BY {column} ORDER BY {column} DESC)",
        ])  # fmt: skip

    def condition(self, sources, outer):
        rng, column = self.rng, self.column(sources, outer)[0]
        if rng.random() < 0.2 and self.depth < 3:
            inner = self.select((*sources, *outer), 1)[0]
            return rng.choice([f"{column} NOT IN ({inner})", f"EXISTS ({inner})", f"{column} = ({inner})"])
        one = rng.choice([
            f"{column} = 'it''s'", f"{column} LIKE \"%no name%\"", f"{column} BETWEEN 1 AND 2", f"{column} IN (1, 'b')",
            f"{column} IS NOT NULL", f"NOT {column} <> {self.column(sources, outer)[0]}", f"lower({column}) != 'x'",
        ])  # fmt: skip
        return f"({one} OR {self.condition(sources, outer)})" if rng.random() < 0.2 else one


def query(made, rng):
    """A query, sometimes with a CTE before it."""
    writer = Writer(made, rng)
    if rng.random() < 0.2:
        text, columns = writer.select(())
        if all(columns) and len(set(columns)) == len(columns):
            writer.made = Schema((*made.tables, Table("cte_1", tuple(Column(name) for name in columns))))
            return f"WITH cte_1 AS ({text}) {writer.query()[0]}"
    return writer.query()[0]
