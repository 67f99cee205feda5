"""A mail server for the tests: `smtp.py DIRECTORY [OPTIONS]`.

Listens on a free port of the loopback, which it prints, and writes each mail it takes into a file of its own: `key: value`
lines about the delivery and the header, an empty line, and the body, all decoded. It ends when its standard input does.
"""

import argparse
import asyncio
import email
import email.policy
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

parser = argparse.ArgumentParser()
parser.add_argument("directory")
parser.add_argument("--login", nargs=2, metavar=("USER", "PASSWORD"), help="take mail after this login only")
parser.add_argument("--cert", nargs=2, metavar=("FILE", "KEY"), help="offer STARTTLS")
parser.add_argument("--tls", action="store_true", help="TLS from the first byte on, instead of STARTTLS")
parser.add_argument("--add-to-starttls", metavar="LINES", help="what somebody between adds to the answer to STARTTLS")
parser.add_argument("--refuse", action="append", default=[], metavar="ADDRESS", help="an unknown recipient")
options = parser.parse_args()

context = None
if options.cert:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*options.cert)


class Server(SMTP):
    async def push(self, status):
        if options.add_to_starttls and "start TLS" in str(status):
            status = f"{status}\r\n{options.add_to_starttls}"
        await super().push(status)


class Handler:
    taken = 0

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in options.refuse:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        login = session.auth_data.login.decode() if session.authenticated else ""
        lines = [("from", envelope.mail_from), ("tls", "yes" if session.ssl or options.tls else "no"), ("login", login)]
        lines += [("to", address) for address in envelope.rcpt_tos]
        lines += [(f"header-{name.lower()}", value) for name, value in message.items()]
        body = message.get_content().replace("\r\n", "\n")
        text = "".join(f"{key}: {value}\n" for key, value in lines) + "\n" + body
        self.taken += 1
        path = os.path.join(options.directory, f"{self.taken:04}.mail")
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(path + ".new", path)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    wanted = LoginPassword(*(word.encode() for word in options.login))
    return AuthResult(success=data == wanted, handled=False, auth_data=data)


async def main():
    handler = Handler()
    settings = {"hostname": "mail.test", "enable_SMTPUTF8": True}
    if options.login:
        settings.update(authenticator=authenticate, auth_required=True, auth_require_tls=False)
    if context and not options.tls:
        settings.update(tls_context=context)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Server(handler, **settings), "127.0.0.1", 0, ssl=context if options.tls else None
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
