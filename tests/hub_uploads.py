"""What the stand-in for the hub answers to uploads: new repositories, large files, commits."""

import base64
import hashlib
import json
import re


class Uploads:
    """The part of the request handler that writes; `answer_upload` says whether it did answer."""

    def answer_upload(self, path: str, body: bytes) -> bool:
        """Answer one request to write, or none."""
        if path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif stored := re.fullmatch(r"/upload/(\w{64})", path):
            assert hashlib.sha256(body).hexdigest() == stored[1]
            self.server.uploaded[stored[1]] = body
            self.send_json({})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif large := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._offer(large[1], json.loads(body)["objects"])
        elif api := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path):
            self._write(api[1], api[2], body)
        else:
            return False
        return True

    def _may_write(self) -> bool:
        allowed = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if not allowed:
            self.error(401, "Unauthorized")
        return allowed

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write():
            return
        if ("models", name) in self.server.repositories:
            return self.send(409, b'{"error": "You already created this model repo"}', {})
        self.server.commit("models", name, {".gitattributes": b""})
        self.server.repositories["models", name].private = asked.get("visibility") == "private"
        self.send_json({"url": f"{self.server.endpoint}/{name}", "name": name, "id": "1"})

    def _offer(self, name: str, objects: list[dict]) -> None:
        """Where large files go, and that they are not there yet."""
        if self._may_write():
            for each in objects:
                href = f"{self.server.endpoint}/upload/{each['oid']}"
                each["actions"] = {"upload": {"href": href}}
            self.send_json({"transfer": "basic", "objects": objects})

    def _write(self, name: str, verb: str, body: bytes) -> None:
        if not self._may_write():
            return
        if verb == "preupload":
            large = (".safetensors", ".gguf")
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(large) else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return self.send_json({"files": files})
        repository = self.server.repositories["models", name]
        files = dict(repository.commits[repository.branches["main"]])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.uploaded[value["oid"]]
        sha = self.server.commit("models", name, files)
        url = f"{self.server.endpoint}/{name}/commit/{sha}"
        self.send_json({"success": True, "commitOid": sha, "commitUrl": url})
