"""A proxy that ends TLS before a service on loopback, as an operator would put one there.

Arguments: certificate, key, port of the service. Prints its own port; serves until its standard input is closed.
"""

import socket
import ssl
import sys
import threading


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(raw, context, port):
    try:
        client = context.wrap_socket(raw, server_side=True)
    except OSError:
        return  # the client does not believe us
    service = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=pump, args=(client, service), daemon=True).start()
    pump(service, client)


def main():
    certificate, key, port = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), listener.shutdown(socket.SHUT_RDWR)), daemon=True).start()
    while True:
        try:
            raw, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(raw, context, int(port)), daemon=True).start()


main()
