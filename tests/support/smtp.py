"""A mail server for tests: STARTTLS with a certificate, login needed. Prints its port, then one line of JSON per message.

usage: smtp.py CERTIFICATE KEY USER PASSWORD
"""
import email, email.policy, json, ssl, sys, threading
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword, SMTP

certificate, key, user, password = sys.argv[1:5]


class Handler:
    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        print(json.dumps({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": message["subject"],
            "id": message["message-id"],
            "automatic": message["auto-submitted"],
            "text": message.get_body().get_content(),
            "tls": session.ssl is not None,
        }), flush=True)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, given):
    right = isinstance(given, LoginPassword) and (given.login, given.password) == (user.encode(), password.encode())
    # Not handled: the server itself answers 535.
    return AuthResult(success=right, handled=right)


class TestController(Controller):
    def factory(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return SMTP(self.handler, hostname="localhost", tls_context=context, require_starttls=True,
                    authenticator=authenticate, auth_required=True)


class AnyPort(TestController):
    # The start is checked by a connection to the port, which is known only now: the system chose it.
    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


controller = AnyPort(Handler(), hostname="127.0.0.1", port=0)
controller.start()
print(controller.port, flush=True)
threading.Event().wait()
