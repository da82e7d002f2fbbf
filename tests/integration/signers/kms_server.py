"""moto as a server, with the one thing its KMS leaves out: with MessageType DIGEST, AWS takes the message for the digest itself and does
not hash it again. Run by the Python that has moto: kms_server.py -H HOST -p PORT
"""

import sys
import threading

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.kms.exceptions import ValidationException
from moto.kms.responses import KmsResponse
from moto.kms.utils import RSAPrivateKey
from moto.server import main

ASKED = threading.local()
respond, sign_raw = KmsResponse.sign, RSAPrivateKey.sign


def sign_response(self):
    ASKED.message_type = self._get_param("MessageType") or "RAW"
    return respond(self)


def sign(self, message, signing_algorithm):
    if ASKED.message_type != "DIGEST" or signing_algorithm != "RSASSA_PKCS1_V1_5_SHA_256":
        return sign_raw(self, message, signing_algorithm)
    if len(message) != 32:
        raise ValidationException("Digest is invalid length for algorithm RSASSA_PKCS1_V1_5_SHA_256.")
    return self.private_key.sign(message, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


KmsResponse.sign, RSAPrivateKey.sign = sign_response, sign
sys.exit(main())
