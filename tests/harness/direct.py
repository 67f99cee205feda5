"""A server with TLS from the first byte on: `direct.py CERTIFICATE KEY [PROTOCOL]`.

Listens on a free port of the loopback, which it prints. It agrees to the protocol by ALPN, reads the request to log in, and refuses
it with the protocol that both agreed to. It ends when its standard input does.
"""

import socket
import ssl
import struct
import sys
import threading

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:3])
if sys.argv[3:]:
    context.set_alpn_protocols(sys.argv[3:])


def refuse(client):
    try:
        stream = context.wrap_socket(client, server_side=True)
        stream.recv(65536)
        text = f"SFATAL\0C28000\0Mspeaking {stream.selected_alpn_protocol()}\0\0".encode()
        stream.sendall(b"E" + struct.pack("!I", len(text) + 4) + text)
        stream.close()
    except OSError as error:
        print(error, file=sys.stderr)


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=lambda: [refuse(listener.accept()[0]) for _ in iter(int, 1)], daemon=True).start()
sys.stdin.read()
