"""How others can verify our ServiceAccount tokens: the issuer's OpenID configuration and its public keys.

Source: kubernetes.io/docs/tasks/configure-pod-container/configure-service-account (issuer discovery).
"""

from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry.codec import to_json
from pki.tokens import Signer


class IssuerDiscovery:
    """`server` is this server's own address, where the keys are."""

    PATHS = ("/.well-known/openid-configuration", "/openid/v1/jwks")

    def __init__(self, signer: Signer, server: str) -> None:
        self._signer = signer
        self._server = server

    def answer(self, request: Request) -> Response | None:
        """None for another path."""
        path = request.path.rstrip("/")
        if path not in self.PATHS:
            return None
        headers = {"Cache-Control": "public, max-age=3600"}
        if path == self.PATHS[1]:
            body = to_json({"keys": self._signer.public_keys()})
            return Response(body=body, content_type="application/jwk-set+json", headers=headers)
        return Response(body=to_json({
            "issuer": self._signer.issuer,
            "jwks_uri": self._server + self.PATHS[1],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }), headers=headers)  # fmt: skip
