# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation fragments of the modules and the inventory plugin."""

from __future__ import annotations


class ModuleDocFragment:
    # The options are those of module_utils/_arguments.py; tests/unit/project/test_documentation.py ties the two.
    DOCUMENTATION = r"""
options:
  subscription_id:
    description:
      - Id of the subscription.
      - Environment variable E(AZURE_SUBSCRIPTION_ID).
    type: str
  wait_timeout:
    description:
      - Maximum time in seconds to wait until a change is finished and confirmed. If Azure throttles requests after the
        task has changed something, the task waits up to an hour, whatever this value is.
      - After access to a key is granted, Azure may need ten minutes until an account that uses the key is available.
    type: int
    default: 600
notes:
  - If the connection is C(local), the task runs in Ansible's own process, which avoids the start of a Python
    interpreter. Set the variable C(cmk_in_process) to V(false) to run the task as an ordinary module.
  - A failure returns a stable RV(ignore:code) and a message;
    L(docs/errors.md,https://github.com/azbatch/azbatch.cmk/blob/main/docs/errors.md) describes all codes.
"""

    # Credentials, tenant and cloud of the caller, for all plugins that send requests to Azure.
    SIGN_IN = r"""
options:
  tenant:
    description:
      - Id or domain of the tenant to sign in to.
      - Environment variables E(AZURE_TENANT) and E(AZURE_TENANT_ID).
    type: str
  client_id:
    description:
      - Application (client) id to sign in with; with O(auth_source=msi) that of a user-assigned identity.
      - Environment variable E(AZURE_CLIENT_ID).
    type: str
  secret:
    description:
      - Secret of the application.
      - Environment variables E(AZURE_SECRET) and E(AZURE_CLIENT_SECRET).
    type: str
  x509_certificate_path:
    description:
      - Path of a PEM file with the application's certificate and private key, instead of O(secret).
      - Environment variable E(AZURE_CERTIFICATE_PATH).
    type: path
  auth_source:
    description:
      - Source of the credentials.
      - V(auto) uses the first available of these sources. The credential file, if O(profile) is set. O(client_id) with
        O(secret) or O(x509_certificate_path). The section C(default) of the credential file. The session of the Azure
        CLI.
      - V(env) uses O(tenant), O(client_id), and O(secret) or O(x509_certificate_path), or their environment variables.
      - V(cli) uses the session of C(az login).
      - V(credential_file) uses C(~/.azure/credentials), an INI file with a section for each profile.
      - V(msi) uses the managed identity of the machine.
      - V(workload_identity) uses the federated token in the file that E(AZURE_FEDERATED_TOKEN_FILE) names.
      - Environment variable E(ANSIBLE_AZURE_AUTH_SOURCE).
    type: str
    default: auto
    choices: [auto, env, cli, credential_file, msi, workload_identity]
  profile:
    description:
      - Section of the credential file.
      - Environment variable E(AZURE_PROFILE).
    type: str
  cloud_environment:
    description:
      - The cloud, V(AzureCloud), V(AzureUSGovernment) or V(AzureChinaCloud).
      - Environment variable E(AZURE_CLOUD_ENVIRONMENT).
    type: str
    default: AzureCloud
requirements:
  - Python 3.11 or newer
  - azure-core >= 1.31.0
  - azure-identity >= 1.19.0
  - azure-mgmt-core >= 1.4.0
  - azure-mgmt-batch >= 17.3.0
  - azure-mgmt-keyvault >= 10.3.1
  - azure-keyvault-keys >= 4.10.0
"""

    # For plugins other than modules, Ansible reads the environment variables. If several are set, the last one counts.
    ENVIRONMENT = r"""
options:
  tenant:
    env:
      - name: AZURE_TENANT_ID
      - name: AZURE_TENANT
  client_id:
    env:
      - name: AZURE_CLIENT_ID
  secret:
    env:
      - name: AZURE_CLIENT_SECRET
      - name: AZURE_SECRET
  x509_certificate_path:
    env:
      - name: AZURE_CERTIFICATE_PATH
  auth_source:
    env:
      - name: ANSIBLE_AZURE_AUTH_SOURCE
  profile:
    env:
      - name: AZURE_PROFILE
  cloud_environment:
    env:
      - name: AZURE_CLOUD_ENVIRONMENT
"""
