"""Merges Kustomize bases and overlays, for a machine that has no kustomize.

    scripts/k8s_build.py k8s/overlays/cpu          # prints the merged objects as YAML

Knows what k8s/ uses and refuses everything else, so that nothing is silently left out: `resources`, `images`, `replicas`, and `patches`
with a path to strategic-merge patches. Takes PyYAML.

Strategic merge: maps are merged; `null` removes a field; `$patch: delete` removes an object or an element; a list whose elements have a
key (below) is merged by that key, every other list is replaced. Objects of kinds that Kubernetes does not know are merged the same way
but for their lists, which are replaced: kustomize has no keys for them either.
"""

import copy
import pathlib
import sys

import yaml

# The lists that Kubernetes merges by a key, as far as they occur here.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "containers.ports": "containerPort",
    "spec.ports": "port",
    "imagePullSecrets": "name",
    "topologySpreadConstraints": "topologyKey",
}
KNOWN_GROUPS = {"v1", "apps", "policy", "networking.k8s.io", "batch", "autoscaling"}
FIELDS = {"apiVersion", "kind", "resources", "images", "replicas", "patches"}


class BuildError(Exception):
    """What is not understood, or does not fit."""


def load_all(path):
    """The objects of a file."""
    try:
        return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]
    except (yaml.YAMLError, OSError) as error:
        raise BuildError(f"{path}: {error}") from error


def identity(thing):
    """What a patch finds its object by."""
    try:
        group = thing["apiVersion"].split("/")[0]
        return group, thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
    except (KeyError, TypeError) as error:
        raise BuildError(f"an object without {error}: {str(thing)[:100]}") from error


def named(thing):
    """An object's name, for people."""
    return f"{thing['kind']} {thing['metadata']['name']}"


def key_of(path):
    """The key by which the list at a path is merged, if it is."""
    return MERGE_KEYS.get(".".join(path[-2:])) or MERGE_KEYS.get(path[-1])


def merge(base, patch, native, path=()):
    """The base with the patch on it."""
    if isinstance(base, dict) and isinstance(patch, dict):
        directive = patch.get("$patch")
        if directive == "replace":
            return {name: value for name, value in patch.items() if name != "$patch"}
        if directive is not None:
            raise BuildError(f"$patch: {directive} is not understood at {'.'.join(path)}")
        merged = dict(base)
        for name, value in patch.items():
            if value is None:
                merged.pop(name, None)
            elif name in merged:
                merged[name] = merge(merged[name], value, native, (*path, name))
            else:
                merged[name] = without_directives(value, (*path, name))
        return merged
    key = native and path and isinstance(base, list) and isinstance(patch, list) and key_of(path)
    return merge_lists(base, patch, key, path) if key else without_directives(patch, path)


def merge_lists(base, patch, key, path):
    """Two lists, element by element. New elements go to the front, as kustomize puts them."""
    try:
        merged = {element[key]: element for element in base}
        new = {}
        for element in patch:
            name = element[key]
            if element.get("$patch") == "delete":
                if name not in merged:
                    raise BuildError(f"{'.'.join(path)} has no {name} to delete")
                del merged[name]
            elif name in merged:
                merged[name] = merge(merged[name], element, True, path)
            else:
                new[name] = without_directives(element, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"an element of {'.'.join(path)} without {key}: {error}") from error
    return [*new.values(), *merged.values()]


def without_directives(value, path):
    """What a patch adds. A directive in it would have nothing to act on."""
    if isinstance(value, dict):
        if "$patch" in value:
            raise BuildError(f"$patch: {value['$patch']} at {'.'.join(path)} has nothing to act on")
        return {name: without_directives(one, (*path, name)) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_directives(one, path) for one in value]
    return value


def pod_of(thing):
    """The pod template of an object that makes pods."""
    return thing.get("spec", {}).get("template", {}).get("spec") if isinstance(thing.get("spec"), dict) else None


def containers(pod):
    """All containers of a pod."""
    return [*pod.get("initContainers", []), *pod.get("containers", [])]


def name_and_tag(image):
    """An image's name, and its tag if it has one: a colon before a slash is a port."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "")


def set_images(things, images):
    """Names and tags as an overlay says them."""
    for image in images:
        unknown = set(image) - {"name", "newName", "newTag"}
        if unknown:
            raise BuildError(f"images: {unknown} is not understood")
        found = False
        for thing in things:
            for container in containers(pod_of(thing) or {}):
                name, tag = name_and_tag(container.get("image", ""))
                if name == image["name"]:
                    container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
                    found = True
        if not found:
            raise BuildError(f"images: no container has the image {image['name']}")


def set_replicas(things, replicas):
    """Numbers of replicas as an overlay says them."""
    for wanted in replicas:
        found = [thing for thing in things if thing["kind"] in ("Deployment", "StatefulSet") and thing["metadata"]["name"] == wanted["name"]]
        if not found:
            raise BuildError(f"replicas: there is no Deployment or StatefulSet {wanted['name']}")
        for thing in found:
            thing["spec"]["replicas"] = wanted["count"]


def apply_patch(things, patch):
    """The objects with one patch applied to the one that it names."""
    at = [n for n, thing in enumerate(things) if identity(thing) == identity(patch)]
    if len(at) != 1:
        raise BuildError(f"a patch names {named(patch)}, of which there are {len(at)}")
    if patch.get("$patch") == "delete":
        return things[: at[0]] + things[at[0] + 1 :]
    native = patch["apiVersion"].split("/")[0] in KNOWN_GROUPS
    return [merge(thing, patch, native) if n == at[0] else thing for n, thing in enumerate(things)]


def build(folder):
    """The objects of a base or an overlay, with everything applied in kustomize's order: resources, patches, replicas, images."""
    file = pathlib.Path(folder) / "kustomization.yaml"
    read = load_all(file)
    if len(read) != 1 or not isinstance(read[0], dict):
        raise BuildError(f"{file} holds no single Kustomization")
    kustomization = read[0]
    unknown = set(kustomization) - FIELDS
    if unknown:
        raise BuildError(f"{file}: {', '.join(sorted(unknown))} is not understood here")
    things = []
    for resource in kustomization.get("resources", []):
        path = file.parent / resource
        things += build(path) if path.is_dir() else load_all(path)
    ids = [identity(thing) for thing in things]
    doubled = {one for one in ids if ids.count(one) > 1}
    if doubled:
        raise BuildError(f"{file}: defined twice: {doubled}")
    things = copy.deepcopy(things)
    for patch in kustomization.get("patches", []):
        if set(patch) != {"path"}:
            raise BuildError(f"{file}: patches are files of strategic-merge patches here, named by path alone")
        for one in load_all(file.parent / patch["path"]):
            things = apply_patch(things, one)
    set_replicas(things, kustomization.get("replicas", []))
    set_images(things, kustomization.get("images", []))
    return things


def main():
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: k8s_build.py FOLDER")
    try:
        print(yaml.safe_dump_all(build(sys.argv[1]), sort_keys=False), end="")
    except BuildError as error:
        sys.exit(f"k8s_build: {error}")


if __name__ == "__main__":
    main()
