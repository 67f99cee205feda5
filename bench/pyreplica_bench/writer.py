"""A client that keeps a session, and repeats a transaction that failed in a new one: what an application has to do anyway.

    python3 -m pyreplica_bench.writer OPTIONS OUT     until SIGTERM; OPTIONS as JSON

Each transaction moves an amount between two tables and leaves a token, so that a transaction that is lost or done twice shows.
"""

import json
import random
import signal
import sys
import time

import psycopg2

# Between two attempts to find a host that can be written to.
PAUSE = 0.01

# SQLSTATE of a commit that the client does not know the end of: the session was lost meanwhile.
IN_DOUBT = "in doubt"


class Writer:
    """`hosts` is a connection string for each host, or one that libpq finds the right host by."""

    def __init__(self, number, hosts, tables, rate):
        self.number, self.hosts, self.tables, self.pause = number, hosts, tables, 1 / rate
        self.session, self.turn, self.is_ending = None, 0, False
        # Of each transaction its begin and end; of each failure when and what.
        self.done, self.errors = [], []

    def run(self):
        due = time.time()
        while not self.is_ending:
            due = max(due + self.pause, time.time())
            time.sleep(max(0, due - time.time()))
            self.transfer(f"{self.number}.{len(self.done)}")

    def transfer(self, token):
        one, other = random.sample(range(self.tables), 2)
        account, amount = random.randint(1, 10), random.randint(1, 100)
        begin, is_in_doubt = time.time(), False
        while True:
            is_committing = False
            try:
                cursor = self.connected().cursor()
                if is_in_doubt and self.is_there(cursor, one, token):
                    break
                cursor.execute(f"insert into t{one} (token, amount) values (%s, %s)", [token, amount])
                cursor.execute(f"update t{other} set amount = amount - %s where id = %s", [amount, account])
                is_committing = True
                self.session.commit()
                break
            except psycopg2.Error as error:
                # A server that refuses a commit has rolled back; one that says nothing may have committed.
                is_in_doubt = is_in_doubt or (is_committing and error.pgcode is None)
                self.failed(error, is_committing)
        self.done.append((begin, time.time()))

    def connected(self):
        if self.session is None:
            self.session = psycopg2.connect(self.hosts[self.turn % len(self.hosts)])
        return self.session

    def is_there(self, cursor, table, token):
        cursor.execute(f"select 1 from t{table} where token = %s", [token])
        return cursor.fetchone() is not None

    def failed(self, error, is_committing):
        what = error.pgcode or (IN_DOUBT if is_committing else "connection lost" if self.session else "no host to write to")
        self.errors.append((time.time(), what, str(error).strip().splitlines()[0]))
        if self.session is None or len(self.hosts) > 1:
            time.sleep(PAUSE)
        self.turn += 1
        if self.session is not None:
            self.session.close()
            self.session = None

    def end(self, *_):
        self.is_ending = True


def main():
    writer = Writer(**json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, writer.end)
    writer.run()
    with open(sys.argv[2], "w") as out:
        json.dump({"number": writer.number, "done": writer.done, "errors": writer.errors}, out)


if __name__ == "__main__":
    main()
