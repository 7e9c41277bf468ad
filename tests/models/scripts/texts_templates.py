"""Rows of tests/models/texts/templates.json: templates, and the chats that they render."""

import texts_further
import texts_published

USER = {"role": "user", "content": "Hi <é> 'you' \"there\""}
LONG = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": "  One & two?  "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo."},
    {"role": "user", "content": "Why?", "name": "anna"},
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather", "description": "Tells \"the\" weather <now> – é",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "enum": ["a", "b"]}, "days": {"type": "integer", "default": 3}},
                       "required": ["place"]},
    },
}
CALLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"place": "a", "days": 2.0, "exact": True, "note": None}}}]},
    {"role": "tool", "content": "{\"sun\": 1}", "tool_call_id": "c1", "name": "weather"},
]
REASONED = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A", "reasoning_content": "because", "extra": None},
    {"role": "user", "content": "Q2"},
]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "See "}, {"type": "image"}, {"type": "text", "text": "this."}]}]
CHAT = {"messages": [USER]}
# Rows that transformers may fail to render, by how their names begin.
MAY_FAIL = ("one at a time", "further", "published", "no template", "Mistral's form", "Gemma's form", "gpt-oss's form")
LONG_CHAT = {"messages": LONG}


def chat(messages=None, **arguments):
    return {"messages": messages or [USER], **({"arguments": arguments} if arguments else {})}


def row(name, template, *chats):
    return {"name": name, "template": template, "chats": list(chats) or [CHAT]}


def values(name, *expressions, **arguments):
    """A row that writes out expressions, one a line."""
    template = "".join(f"{{{{ {expression} }}}}|\n" for expression in expressions)
    return row(name, template, chat(**arguments))


def each(name, *expressions, **arguments):
    """A row for each expression: one that fails does not hide the others."""
    return [row(f"{name}: {expression}", f"{{{{ {expression} }}}}", chat(**arguments)) for expression in expressions]


def fails(name, *templates):
    return [row(f"{name}: {template}", template) for template in templates]


def refused(name, what, *templates):
    return [{"name": f"{name}: {template}", "template": template, "refused": what} for template in templates]


QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function if call.function else call %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' ~ content ~ '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
""" + texts_published.QWEN_END + "\n"
DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(is_first=false, is_tool=false, system='', is_first_sp=true) %}
{%- for m in messages %}{%- if m['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system = ns.system + m['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system = ns.system + '\\n\\n' + m['content'] %}{%- endif %}{%- endif %}{%- endfor %}
{{ bos_token }}{{ ns.system }}
{%- for m in messages %}{%- if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{%- endif %}
{%- if m['role'] == 'assistant' and m['content'] is not none %}{% set content = m['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<|Assistant|>' + content + eos_token }}{%- endif %}{%- endfor -%}
{% if add_generation_prompt and not ns.is_tool %}{{ '<|Assistant|><think>\\n' }}{% endif %}"""
KIMI = """{% macro render_content(msg) -%}
    {%- set c = msg.get('content') -%}
    {%- if c is string -%}{{ c }}{%- elif c is not none -%}
        {% for part in c -%}{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}<|media|>{% else %}{{ part['text'] }}{%- endif -%}{%- endfor -%}
    {%- endif -%}
{%- endmacro %}
{%- if tools -%}<|im_system|>tools<|m|>{{ tools | tojson(separators=(',', ':')) }}<|im_end|>{%- endif -%}
{%- for message in messages -%}
    {%- if loop.first and messages[0]['role'] != 'system' -%}<|im_system|>system<|m|>Default.<|im_end|>{%- endif -%}
    {%- set role_name = message.get('name') or message['role'] -%}
    {%- if message['role'] == 'user' -%}<|im_user|>{{ role_name }}<|m|>{%- elif message['role'] == 'assistant' -%}<|im_assistant|>{{ role_name }}<|m|>{%- else -%}<|im_system|>{{ role_name }}<|m|>{%- endif -%}
    {%- if message['role'] == 'assistant' and message.get('tool_calls') -%}
        {{ render_content(message) }}<|calls|>
        {%- for tool_call in message['tool_calls'] -%}
            {%- set formatted_id = tool_call['id'] -%}<|call|>{{ formatted_id }}<|arg|>{% if tool_call['function']['arguments'] is string %}{{ tool_call['function']['arguments'] }}{% else %}{{ tool_call['function']['arguments'] | tojson }}{% endif %}<|end|>
        {%- endfor -%}<|calls_end|>
    {%- elif message['role'] == 'tool' -%}{%- set id = message.tool_call_id -%}## Return of {{ id }}
{{ render_content(message) }}
    {%- elif message['content'] is not none -%}{{ render_content(message) }}{%- endif -%}<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_assistant|>assistant<|m|>{%- endif -%}
"""
GLM = """[gMASK]<sop>
{%- if tools -%}
<|system|>
# Tools
{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{% endfor %}
{%- endif -%}
{%- macro visible_text(content) -%}
    {%- if content is string -%}
        {{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}
            {%- if item is mapping and item.type == 'text' -%}{{- item.text }}
            {%- elif item is string -%}{{- item }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}{{- content }}{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(last_user_index=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{% set ns.last_user_index = loop.index0 -%}{%- endif %}{%- endfor %}
{% for m in messages %}
{%- if m.role == 'user' -%}<|user|>
{{ visible_text(m.content) }}
{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible_text(m.content).endswith("/nothink")) else '' -}}
{%- elif m.role == 'assistant' -%}
<|assistant|>
{%- set reasoning_content = '' %}{%- set content = visible_text(m.content) %}
{%- if m.reasoning_content is string %}{%- set reasoning_content = m.reasoning_content %}
{%- elif '</think>' in content %}{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- if loop.index0 > ns.last_user_index and reasoning_content -%}{{ '\\n<think>' + reasoning_content.strip() +  '</think>'}}{%- else -%}{{ '\\n<think></think>' }}{%- endif -%}
{%- if content.strip() -%}{{ '\\n' + content.strip() }}{%- endif -%}
{% if m.tool_calls %}{% for tc in m.tool_calls %}{%- if tc.function %}{%- set tc = tc.function %}{%- endif %}
{{ '\\n<tool_call>' + tc.name }}
{% set _args = tc.arguments %}
{% for k, v in _args.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}</tool_call>{% endfor %}{% endif %}
{%- elif m.role == 'tool' -%}
{%- if m.content is string -%}{%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|observation|>' }}{%- endif %}{{- '\\n<tool_response>\\n' }}{{- m.content }}{{- '\\n</tool_response>' }}{%- endif -%}
{%- elif m.role == 'system' -%}<|system|>
{{ visible_text(m.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}{%- endif -%}"""
MISTRAL = """{%- if messages[0]["role"] == "system" %}{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- for message in loop_messages | rejectattr("role", "equalto", "tool") | rejectattr("tool_calls", "defined") %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}{{- "[AVAILABLE_TOOLS] [" }}{%- for tool in tools %}{%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}{%- for key, val in tool.items() if key != "return" %}{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}{{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}{%- endfor %}{{- "[/AVAILABLE_TOOLS]" }}{%- endif %}
        {%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}{%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""
LLAMA = """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}{{- system_message }}{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- for arg_name, arg_val in tool_call.arguments | items %}{{- arg_name + '="' ~ arg_val ~ '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}{%- else -%}{%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}{%- set first_user_prefix = "" -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}{%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}
    {%- else -%}{{ raise_exception("Invalid content type") }}{%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\\n'}}{%- endif -%}
"""
HARMONY = """{%- macro param_type(spec) -%}
    {%- if spec.type == "array" -%}{%- if spec['items'] -%}{{- param_type(spec['items']) + "[]" }}{%- else -%}{{- "any[]" }}{%- endif -%}
    {%- elif spec.enum -%}{{- '"' + spec.enum|join('" | "') + '"' -}}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string -%}{{- spec.type | join(" | ") }}
    {%- elif spec.type in ["number", "integer"] -%}{{- "number" }}
    {%- else -%}{{- spec.type or "any" }}{%- endif -%}
    {%- if spec.default is defined -%} // default: {{ spec.default }}{%- endif -%}
{%- endmacro -%}
{%- macro tool_namespace(name, tools) -%}
    {{- "## " + name + "\\n\\nnamespace " + name + " {\\n\\n" }}
    {%- for tool in tools %}{%- set tool = tool.function %}
        {{- "// " + tool.description + "\\ntype "+ tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties %}{{- "(_: {\\n" }}
            {%- for param_name, param_spec in tool.parameters.properties.items() %}{{- param_name }}{%- if param_name not in (tool.parameters.required or []) -%}{{- "?" }}{%- endif -%}{{- ": " }}{{ param_type(param_spec) }}{%- if not loop.last %}{{- ",\\n" }}{%- endif %}{%- endfor %}{{- "\\n}) => any;\\n\\n" }}
        {%- else -%}{{- "() => any;\\n\\n" }}{%- endif -%}
    {%- endfor %}{{- "} // namespace " + name }}
{%- endmacro -%}
{%- if reasoning_effort is not defined %}{%- set reasoning_effort = "medium" %}{%- endif -%}
{{- "<|start|>system<|message|>Current date: " + strftime_now("%Y-%m-%d") + "\\n\\nReasoning: " + reasoning_effort + "<|end|>" }}
{%- if tools -%}{{- "<|start|>developer<|message|># Tools\\n\\n" }}{{- tool_namespace("functions", tools) }}{{- "<|end|>" }}{%- endif -%}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages or messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "content" in message and "<|channel|>analysis<|message|>" in message.content -%}{{- raise_exception("no channels") }}{%- endif -%}
        {%- if "tool_calls" in message -%}
            {%- set future = namespace(found=false) -%}{%- for m in messages[loop.index:] -%}{%- if m.role == 'assistant' and "tool_calls" not in m -%}{%- set future.found = true -%}{%- endif -%}{%- endfor -%}
            {%- if message.thinking and not future.found -%}{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}{%- endif -%}
            {%- set call = message.tool_calls[0] -%}{%- if call.function %}{%- set call = call.function %}{%- endif -%}
            {{- "<|start|>assistant to=functions." + call.name + "<|channel|>commentary json<|message|>" }}{{- call.arguments|tojson }}{{- "<|call|>" }}{%- set last_tool_call.name = call.name %}
        {%- elif loop.last and not add_generation_prompt -%}{{- "last" }}
        {%- else -%}{{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}{%- set last_tool_call.name = none %}{%- endif -%}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none -%}{{- raise_exception("Message has tool role, but there was no previous assistant message with a tool call!") }}{%- endif -%}
        {{- "<|start|>functions." + last_tool_call.name + " to=assistant<|message|>" + message.content|tojson + "<|end|>" }}
    {%- else -%}{{- "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"""
TOOLS = [WEATHER]
THINKER = """{% for m in messages %}<|{{ m.role }}|>
{% if m.role == 'assistant' %}{% generation %}{{ m.content.rsplit('</think>', 1)[-1].lstrip() }}{{ eos_token }}{% endgeneration %}

{% else %}{{ m.content }}
{% endif %}
{%- if loop.last %}{% break %}{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>
{% endif %}"""

ROWS = [
    # Real templates' forms.
    row("Qwen3's form", QWEN, LONG_CHAT, chat(LONG, enable_thinking=False), chat(CALLS, tools=TOOLS), chat(REASONED), chat(PARTS)),
    row("DeepSeek's form", DEEPSEEK, LONG_CHAT, CHAT),
    row("Kimi's form", KIMI, LONG_CHAT, chat(CALLS, tools=TOOLS), chat(PARTS)),
    row("GLM's form", GLM, LONG_CHAT, chat(CALLS, tools=TOOLS, enable_thinking=False), chat(REASONED), chat(PARTS)),
    row("Mistral's form", MISTRAL, LONG_CHAT, chat(tools=TOOLS), chat([LONG[0], LONG[2]])),
    row("Llama's form", LLAMA, LONG_CHAT, chat(CALLS, tools=TOOLS), chat(date_string="today")),
    row("Gemma's form", GEMMA, LONG_CHAT, chat(PARTS), chat([LONG[2]])),
    row("gpt-oss's form", HARMONY, LONG_CHAT, chat(CALLS, tools=TOOLS), chat(REASONED, reasoning_effort="high"), chat(CALLS[2:])),
    row("marks of what is generated", THINKER, LONG_CHAT, chat(REASONED)),
    # Values as text.
    values("constants", "none", "None", "true", "True", "false", "[]", "{}", "()", "(1,)", "1", "-1", "1.0", "1e3", "'a'", "1_000", "0x1F", "0b11", "0o17", "0"),
    values("numbers", "0.1", "1e16", "1e15", "123456789012345678.0", "1e-5", "0.0001", "1.5e-10", "1e100", "-0.0", "2.5", "1/3", "10/5", "7//2", "-7//2", "7//-2", "-7%3", "7%-3", "7.5//2", "-7.5%2", "2**10", "2**-1", "2**0.5", "1e308*10", "-1e308*10", "5 - -3", "+4"),
    values("lists and dictionaries", "[1, 'a', none, true, 1.5, [2], (3,), {'b': 'c'}]", "{'a': 1, 2: 'b', none: true, 1.5: []}", "[\"it's\", 'say \"x\"', 'both \\' and \"']", "['\\n\\t\\\\\\r', 'é\u200b\x00\x7f\u00ad', '日本']", "(1, 2)", "[undefined]", "['a' 'b']"),
    values("messages", "messages", "messages[0]", "messages[0].items()", "messages[0].keys()", "messages[0].values()", "messages[0].items()|list", "messages[0]|items|list", "messages|map(attribute='role')|list", "tools", "documents", "add_generation_prompt"),
    values("the caller's values", "none_", "truth", "whole", "part", "many", "deep", "deep|tojson", "big", "negative", "small",
           none_=None, truth=True, whole=3, part=2.50, many=[1, None, "x"], deep={"a": {"b": [1.0, {"c": False}]}}, big=2**60, negative=-5, small=1e-7),
    values("text with marks of its own", "'' ~ none ~ true ~ 1.0 ~ [1] ~ undefined ~ 'x'", "'%s' % none", "'%s and %s' % ('a', [1])", "'%d%%' % 5.9", "'%05.1f|%-5s|%5s|%+d' % (2.25, 'a', 'b', 3)", "'%(a)s-%(b)03d' % {'a': 1, 'b': 2}", "'%r %a' % ('é', 'é')", "'%x %X %o %#x' % (255, 255, 8, 255)", "'%e %G %g %g' % (12345.678, 0.00001, 100000.0, 1e20)", "'%c%c' % (65, 'z')", "'%.2s' % 'abc'", "'%*d' % (5, 3)", "'%s' % undefined", "'%s' % {'a': 1}", "'100%'"),
    values("str.format", "'{} {}'.format('a', none)", "'{1}{0}{1}'.format(1, 2)", "'{a}-{b.x}-{c[0]}-{d[k]}'.format(a=1, b={'x': 2}, c=[3], d={'k': 4})", "'{{}} {!r} {!s}'.format('a', 'b')", "'{:>5}|{:<5}|{:^5}|{:*^5}'.format('a', 'b', 'c', 'd')", "'{:05d} {:+} {:,} {:.2f} {:e} {:%} {:x} {:#x} {:b} {:g}'.format(42, 3, 1234567, 3.14159, 12345.0, 0.25, 255, 255, 5, 0.5)", "'{:{}}'.format('a', 4)", "'{:5}{:5}'.format(1, 'x')", "'{:,.1f} {:_}'.format(12345.678, 1234567)", "'{0[0]}'.format('xyz')"),
    # Operators.
    values("comparisons", "1 == 1.0", "1 == true", "0 == false", "'1' == 1", "none == false", "[1] == [1.0]", "(1,) == [1]", "{'a': 1} == {'a': 1.0}", "1 < 2 < 3", "3 > 2 > 2", "1 < 2 == true", "'a' < 'b'", "[1, 2] < [1, 3]", "'a' in 'abc'", "'a' not in 'abc'", "1 in [1, 2]", "'role' in messages[0]", "'x' in undefined", "none in [none]", "2 in {1: 1, 2: 2}", "undefined == undefined", "not none", "not 0 and 1"),
    values("and, or and if", "none or 'a'", "'' or [] or 'b'", "1 and 'c'", "0 and 'c'", "'a' if true", "'a' if false", "'a' if false else 'b' if false else 'c'", "[] or none", "(none or 0) is none"),
    values("sums and products", "'a' + 'b' 'c'", "[1] + [2]", "(1,) + (2,)", "'ab' * 3", "3 * 'ab'", "[0] * 3", "'a' * 0", "'a' * -1", "true + 1", "1 + 2 * 3 ** 2", "-2 ** 2", "(-2)|abs", "-2|abs", "10 - 3 - 2", "2 ** 3 ** 2", "'a' ~ 'b' + 'c'"),
    values("places", "'abc'[0]", "'abc'[-1]", "'abc'[5]", "'abc'[1:]", "'abc'[::-1]", "'abcdef'[1:-1:2]", "'abcdef'[-2:]", "'abcdef'[4:1:-1]", "'日本語'[1:]", "[1, 2, 3][::-1]", "[1, 2, 3][-2:]", "[1, 2, 3][1:2]", "[1, 2, 3][10:]", "[1, 2, 3][:none]", "(1, 2, 3)[1:]", "{'a': {'b': 1}}.a.b", "{'a': 1}['a']", "{'a': 1}.b", "{'a': 1}['b']", "{1: 'x'}[1]", "{1: 'x'}[true]", "[[1, 2], 3].0.1", "messages[0]['role']", "messages[-1].role", "[1, 2]['0']", "{'items': 1}['items']", "{'get': 5}.get('get')", "range(5)[1:3]", "range(10, 0, -3)|list", "range(3)", "range(0)|list"),
    # Strings.
    values("methods of strings", "'a b c'.split()", "' a  b c '.split(none, 1)", "'a,b,,c'.split(',')", "'a,b,c'.split(',', 1)", "'a,b,c'.rsplit(',', 1)", "' a  b  c '.rsplit(none, 1)", "'a</think>b</think>c'.rsplit('</think>', maxsplit=1)", "''.split()", "''.split(',')", "'a-b-c'.partition('-')", "'a-b-c'.rpartition('-')", "'abc'.partition('x')", "'abc'.rpartition('x')", "'a\\nb\\r\\nc\\n'.splitlines()", "'a\\nb'.splitlines(true)", "'42'.zfill(5)", "'-42'.zfill(5)", "'a'.ljust(3) ~ '|'", "'a'.rjust(3, '.')", "'a'.center(4, '*')", "'ab'.center(5, '*')"),
    values("more methods of strings", "'  x  '.strip() ~ '|'", "'xxaxx'.strip('x')", "'abcba'.lstrip('ab')", "'abcba'.rstrip('ab')", "'\\n a \\t'.strip()", "'a' .upper() ~ 'Ä'.lower() ~ 'ß'.upper()", "'hello wORLD it\\'s'.title()", "'hELLO Wo'.capitalize()", "'aBc'.swapcase()", "'abc'.startswith('a')", "'abc'.startswith(('x', 'a'))", "'abc'.endswith('bc')", "'abc'.startswith('b', 1)", "'abcabc'.find('c')", "'abcabc'.rfind('c')", "'abc'.find('x')", "'abcabc'.index('b')", "'日本日'.find('日', 1)", "'aaa'.count('a')", "'abab'.count('ab')", "'aaa'.replace('a', 'b', 2)", "'abc'.replace('', '-')", "','.join(['a', 'b'])", "'abc'.removeprefix('a')", "'abc'.removesuffix('bc')", "'a\\tb'.expandtabs(4)", "'ABC'.casefold()", "'ΑΣ Σ ΑΣΑ'.title()", "'ΑΣ'.capitalize()", "'ΑΣ aß'.swapcase()", "'ŉ ﬁx ǆ ß'.title()", "'ΑΣ'.lower()", "'İ'.lower()"),
    values("questions to strings", "'a1'.isalnum()", "'abc'.isalpha()", "'12'.isdigit()", "'1.2'.isdigit()", "'12'.isnumeric()", "'12'.isdecimal()", "' \\n'.isspace()", "''.isspace()", "'abc'.islower()", "'ABC'.isupper()", "'Abc Def'.istitle()", "'a b'.isascii()", "'é'.isascii()", "'a\\n'.isprintable()"),
    values("methods of lists and dictionaries", "{'a': 1}.get('a')", "{'a': 1}.get('b')", "{'a': 1}.get('b', 2)", "{'a': 1, 'b': 2}.items()|list", "{'a': 1}.keys()|list", "{'a': 1}.values()|list", "[1, 2, 1].count(1)", "[1, 2, 1].index(2)", "(1, 2).index(2)", "{'a': 1}.copy()", "dict(a=1, b=2)", "dict([('a', 1)], b=2)", "dict({'a': 1})"),
    # Filters.
    values("json", "{'a': [1, 2.0, none, true, 'é<>&\\'\"/\\u2028\\x7f\\x01']}|tojson", "'é🦀'|tojson(ensure_ascii=true)", "'é'|tojson(ensure_ascii=False)", "{'b': 1, 'a': {'d': 1, 'c': []}}|tojson(indent=2)", "{'b': 1, 'a': 2}|tojson(sort_keys=true)", "[1, {'a': 2}]|tojson(separators=(',', ':'))", "[1, 2]|tojson(indent=2, separators=(',', ' : '))", "{'a': 1}|tojson(indent='--')", "[]|tojson(indent=2)", "{}|tojson(indent=0)", "[1]|tojson(indent=0)", "(1, 2)|tojson", "{1: 2, true: 3, none: 4, 1.5: 5}|tojson", "1e20|tojson", "(1e308*10)|tojson", "'a'|tojson|length", "messages|tojson", "true|tojson(true)", "[1e16, 1e-7]|tojson(false, none)"),
    values("filters of text", "' a '|trim ~ '|'", "'xax'|trim('x')", "'hello world foo-bar (baz)'|title", "'it\\'s a dog\\'s'|title", "'hELLO'|capitalize", "'Ab'|upper", "'AB'|lower", "none|upper", "5|string ~ 1", "'a b  c-d e_f'|wordcount", "'abc'|reverse", "'aXbX'|replace('X', 'y')", "'aXbX'|replace('X', 'y', 1)", "1.5|replace('.', ',')", "'a\\nb\\n\\nc'|indent", "'a\\nb'|indent(2, true)", "'a\\n\\nb'|indent(2, blank=true)", "'a\\nb'|indent('> ')", "'one two three four'|truncate(10)", "'one two three four'|truncate(10, true)", "'one two three four'|truncate(9, false, '!', 0)", "'ab'|center(6) ~ '|'", "'%s-%s'|format('a', 1)", "'%(x)s'|format(x=1)", "'a b/ü&'|urlencode", "'<a>'|e", "'<b>'|safe", "'abc'|length", "'abc'|count", "'abc'|list", "'abc'|first", "'abc'|last"),
    values("filters of lists", "[3, 1, 2]|sort", "[3, 1, 2]|sort(reverse=true)", "['b', 'A', 'a', 'B']|sort", "['b', 'A', 'a', 'B']|sort(case_sensitive=true)", "[{'n': 2}, {'n': 1}]|sort(attribute='n')", "[{'a': 1, 'b': 2}, {'a': 1, 'b': 1}]|sort(attribute='a,b')", "[1, 1, 2, 'a', 'A']|unique|list", "[1, 2, 3]|sum", "[{'x': 1}, {'x': 2}]|sum(attribute='x')", "[1.5, 2]|sum(start=10)", "[1, 5, 3]|max", "['b', 'A']|min", "[]|max", "[1, 2, 3]|first", "[1, 2, 3]|last", "[]|first", "[1, 2, 3]|reverse|list", "[1, 2]|join('-')", "[1, none, 'a']|join(', ')", "[{'x': 1}, {'x': 2}]|join(',', attribute='x')", "'abc'|join('.')", "[1, 2, 3, 4, 5]|batch(2)|list", "[1, 2, 3]|batch(2, '-')|list", "[1, 2, 3, 4, 5]|slice(3)|list", "[1, 2, 3, 4]|slice(3, '-')|list", "[1, 2]|length", "{'a': 1}|length", "{'b': 1, 'A': 2, 'a': 3}|dictsort", "{'b': 1, 'a': 2}|dictsort(by='value', reverse=true)", "{'a': 1}|list"),
    values("filters that look into lists", "messages|map(attribute='content')|list", "messages|map(attribute='x', default='-')|list", "['a', 'b']|map('upper')|list", "['a b', 'c']|map('replace', ' ', '')|join", "[[1, 2], [3]]|map('length')|list", "[[1, 2], [3]]|map('first')|list", "[{'a': [5]}]|map(attribute='a.0')|list", "[1, 2, 3, 4]|select('odd')|list", "[1, 2, 3, 4]|reject('gt', 2)|list", "[0, 1, '', 'a']|select|list", "[0, 1]|reject|list", "messages|selectattr('role', 'equalto', 'user')|list|length", "messages|selectattr('role', 'in', ['system', 'user'])|list|length", "messages|selectattr('name', 'defined')|list", "messages|rejectattr('role', 'eq', 'user')|list", "messages|selectattr('content')|list|length", "[{'t': 'b', 'n': 1}, {'t': 'a', 'n': 2}, {'t': 'B', 'n': 3}]|groupby('t')", "([{'t': 'b', 'n': 1}]|groupby('t'))[0].grouper", "[{'n': 1}]|groupby('t', default='-')", "messages|map('dictsort')|list"),
    values("numbers made and rounded", "'42'|int", "'4.9'|int", "'x'|int", "'x'|int(7)", "none|int", "4.9|int", "-4.9|int", "true|int", "' 12 '|int", "'1_000'|int", "'1e3'|int", "'3.5'|float", "'x'|float", "'x'|float(1.5)", "5|float", "'inf'|float", "2.5|round", "3.5|round", "2.675|round(2)", "2|round", "2.1|round(0, 'ceil')", "2.19|round(1, 'floor')", "-5|abs", "-5.5|abs"),
    values("defaults", "undefined|default('a')", "undefined|default", "none|default('a')", "none|default('a', true)", "''|d('b', boolean=true)", "undefined|length", "undefined|list", "undefined|upper ~ '|'", "undefined|join", "undefined|first", "undefined|last", "undefined|string ~ '|'", "undefined|trim ~ '|'"),
    # Tests.
    values("tests", "none is none", "undefined is none", "undefined is defined", "messages is defined", "undefined is undefined", "'a' is string", "1 is string", "1 is number", "true is number", "1.0 is float", "1 is integer", "true is integer", "true is boolean", "true is true", "1 is true", "false is false", "messages is iterable", "'a' is iterable", "1 is iterable", "undefined is iterable", "{} is mapping", "[] is mapping", "[] is sequence", "'a' is sequence", "{} is sequence", "range is callable", "'a' is callable", "messages[0].get is callable", "3 is odd", "4 is even", "9 is divisibleby 3", "9 is divisibleby(2)", "1 is eq 1", "1 is ne(2)", "2 is gt 1", "2 is lessthan 1", "'a' is in 'abc'", "1 is in [1]", "'abc' is lower", "'ABC' is upper", "'1' is upper", "none is sameas none", "1 is sameas true", "'x' is not none", "not 'x' is none", "messages[0].x is defined", "'upper' is filter", "'odd' is test", "'a' is escaped"),
    # Statements.
    row("loops", "{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x // 2) }}{{ loop.depth }}\n{% endfor %}{% for x in [] %}x{% else %}none{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}"),
    row("loops with conditions", "{% for x in [1, 2, 3, 4, 5] if x is odd %}{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.length }} {% endfor %}{% for x in [2, 4] if x is odd %}{% else %}none{% endfor %}{% set ns = namespace(stop=false) %}{% for x in range(9) if not ns.stop %}{{ x }}{% if x == 3 %}{% set ns.stop = true %}{% endif %}{% endfor %}{{ loop is defined }}"),
    row("break and continue", "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}{% for x in range(3) -%}\n  {% for y in range(3) %}{% if y == x %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}\n{% endfor %}"),
    row("recursive loops", "{% for n in tree recursive %}{{ loop.depth }}{{ n.name }}{% if n.children %}({{ loop(n.children) }}){% endif %}{% endfor %}", chat(tree=[{"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}, {"name": "d"}]}, {"name": "e"}])),
    row("scopes", "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{% with a = 1, b = x %}{{ a }}{{ b }}{% set c = 3 %}{% endwith %}{{ c is defined }}{% if messages %}{% set add_generation_prompt = 'own' %}{% endif %}{{ add_generation_prompt }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, %}{{ t }}"),
    row("blocks that are set", "{% set x %}a{{ 1 }} b\n{% endset %}{{ x }}{{ x|length }}{% set y | upper | replace('A', 'z') %}abc{% set inner = 1 %}{% endset %}{{ y }}{{ inner is defined }}{% filter upper %}a{{ 'b' }}{% endfilter %}{% filter trim | replace('x', 'y') %} xx {% endfilter %}"),
    row("macros", "{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{{ d }}{% endmacro %}{{ f(1) }}|{{ f(1, c=3) }}|{{ f(b=5, a=4) }}|{{ f() }}{% set d = 'late' %}|{{ f(1) }}{% macro g() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ g(1, 2, x=3) }}{{ g() }}{% macro h(n) %}{{ n }}{% if n > 0 %}{{ h(n - 1) }}{% endif %}{% endmacro %}{{ h(3) }}{{ f(1)|length }}{% for i in [7] %}{% macro inner() %}{{ i }}{% endmacro %}{{ inner() }}{% endfor %}"),
    row("call blocks", "{% macro box(title, n=1) %}[{{ title }}{{ caller(n) }}{{ caller(n + 1) }}]{% endmacro %}{% call(x) box('t') %}<{{ x }}{{ messages[0].role }}>{% endcall %}{% macro plain() %}({{ caller() }}){% endmacro %}{% call plain() %}a{% set z = 1 %}{{ z }}{% endcall %}"),
    row("arguments in lists", "{% macro f(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ f(*[1, 2]) }}{{ f(1, **{'b': 3}) }}{{ '{}{x}'.format(*[1], **{'x': 2}) }}"),
    row("conditions", "{% if false %}a{% elif 0 %}b{% elif 'x' %}c{% else %}d{% endif %}{% if messages %}1{% endif %}{% if undefined %}2{% endif %}{% if [] %}3{% endif %}{% if {} or '' or 0.0 %}4{% else %}5{% endif %}{% if messages|map(attribute='x') %}6{% endif %}{% if tools is none %}7{% endif %}{% if not tools %}8{% endif %}{% if documents is not none %}9{% endif %}"),
    row("iterators are given out once", "{% set g = [1, 2]|map('string') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% else %}empty{% endfor %}{% set h = [1, 2, 3]|select %}{{ 2 in h }}{{ h|list }}{{ h|first is defined }}"),
    row("namespaces", "{% set ns = namespace(a=1) %}{{ ns.a }}{{ ns['a'] }}{{ ns.b is defined }}{% set ns.b = [1] %}{% set ns.b = ns.b + [2] %}{{ ns.b }}{% set m = namespace({'x': 1}, y=2) %}{{ m.x }}{{ m.y }}{{ ns == ns }}{{ namespace() is mapping }}"),
    row("the time", "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}|{{ strftime_now('%d %b %Y, %A %B %-d %e %j %y %I:%M %p %f %a') }}|{{ strftime_now('%c|%x|%X|%D|%F|%T|%R|%Z%z%%|%U %W %V %u %w %C %h %n%t') }}"),
    # Whitespace.
    row("whitespace is kept", "  a \n {{ 1 }}  \n b\t{{ 2 }}\n\n"),
    row("tags alone on their lines vanish", "a\n  {% if true %}  \n  b\n  {% endif %}\nc\n{% set x = 1 %}\n{# note #}\nd {# note #} e\n  {# note #}\n{{ x }}\n"),
    row("whitespace is cut on demand", "a  \n {%- if true -%} \n b \n {%- endif -%} \n c {{- 1 -}} \n d {#- note -#} \n e"),
    row("whitespace is kept on demand", "a\n  {%+ if true +%}\n b\n  {%+ endif +%}\n c\n {#+ note +#}\n d"),
    row("whitespace is cut and kept", "a\n\n  {% if true %}\n\n  b {%- endif %}\n\nc\n   {%- set x = 1 %}   \n{% set y = 2 -%}   \n\n z{{ x }}{{ y }}"),
    row("line ends", "a\r\nb\rc\r\n{% if true %}\r\nd\r\n{% endif %}\r\ne{{ 'x\r\ny'|length }}\r\n"),
    row("an end of line at the end", "a\n"),
    row("two ends of line at the end", "a\n\n"),
    row("nothing", ""),
    row("raw text", "{% raw %}{{ a }}{% if %}{% endraw %}|{%- raw -%}  {{ x }}  {%- endraw -%}  |\n{% raw %}\nx\n{% endraw %}\ny"),
    row("comments", "a{# {{ 1 }} {% if %} #}b{#- x -#} c\n{# multi\nline #}\nd"),
    row("braces that are no tags", "{ {a} }} %} #} {{ '}}' }}{{ {'a': {'b': 1}}.a.b }}{{ '{%' }}{{ \"{{\" }}"),
    row("marks of generation keep whitespace", "{% for m in messages %}\n  {% generation %}\n  {{ m.role }}\n  {% endgeneration %}\n{%- generation -%} x {%- endgeneration +%}\n{% endfor %}\n{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}", LONG_CHAT),
    row("strings", "{{ 'a\\'b' }}{{ \"a\\\"b\" }}{{ 'a\\nb\\t\\x41\\u00e9\\101\\\\' }}{{ 'é\\q' }}{{ 'two'\n 'lines' }}{{ 'a\\\nb' }}"),
    # What transformers does to messages.
    row("members that are null are dropped", "{{ messages }}{{ messages[0].content is defined }}", chat([{"role": "user", "content": None, "x": None, "y": [None]}])),
    row("names of reasoning", "{{ messages }}", chat([{"role": "assistant", "content": "a", "reasoning": "r"}, {"role": "assistant", "thinking": "t"}, {"role": "assistant", "reasoning_content": "c", "thinking": "u"}])),
    row("special tokens by name", "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token is defined }}|{{ bos_token is defined }}", CHAT, chat(eos_token="own", bos_token="b")),
    row("documents", "{% for d in documents or [] %}{{ d.title }}: {{ d.text }}\n{% endfor %}{{ documents is none }}", CHAT, chat(documents=[{"title": "T", "text": "x"}])),
    *each("one at a time", "'a' ~ 1 + 2", "1 + 1 ~ 'x'", "messages[0].content.x", "messages[0].x.y", "undefined.x", "undefined[0]", "undefined + 1", "undefined()", "1 + 'a'", "'a' + 1", "[1] + (2,)", "1 < 'a'", "none < 1", "'a' in 1", "1 in 'a'", "none + 1", "none.x", "none[0]", "1 / 0", "1 % 0", "-'a'", "{[1]: 2}", "{'a': 1}[[1]]", "'a'.x()", "'a'()", "1()", "[1, 2]|map('nope')|list", "none|length", "5|list", "1|tojson|tojson", "undefined|tojson", "range(3)|tojson", "{'a': undefined}|tojson", "{(1, 2): 3}|tojson", "'%d' % 'a'", "'%s %s' % 'a'", "'%s' % ('a', 'b')", "'%q' % 1", "'a' % 1", "'a' % [1]", "'{}'.format()", "'{x}'.format()", "'{'.format()", "'a'.index('b')", "[1].index(2)", "'abc'.split('')", "messages.append(1)", "messages[0].update({'a': 1})", "messages[0].pop('role')", "messages.append", "messages[0].__class__", "''.__class__.__mro__", "range(100001)", "range(100000)|length", "range(1, 2, 0)", "raise_exception('own words')", "namespace(_x=1)", "[3, 'a']|sort", "[1, none]|max", "{'a': 1, 2: 3}|dictsort", "{'a': 1, 2: 3}|tojson(sort_keys=true)", "[1, 2, 3]|map('upper')|last", "'abc'|truncate(1)", "none|items|list", "none|indent", "dict(1)", "'x'.join([1])", "[1, 2, 3][::0]", "1[0]", "true.x", "'a'[1.5]", "[1]|map|list", "messages|selectattr|list", "messages|selectattr('role', 'nope')|list", "loop", "caller", "super", "'ab'.zfill('x')", "(1,)[5]", "['a']|sum", "strftime_now(1)", "strftime_now()", "messages|groupby('role')|length", "'a' is divisibleby 2", "none|round", "'a'|abs", "[1,2] is in [[1,2]]"),
    *each("further", *texts_further.EXPRESSIONS),
    *[row(f"further: {template}", template, LONG_CHAT) for template in texts_further.TEMPLATES],
    *[
        row(f"published: {name}", template, *map(chat, texts_published.CHATS))
        for name, template in texts_published.TEMPLATES.items()
    ],
    *fails("no template", "{% if %}", "{% endif %}", "{{ }}", "{{ 1 + }}", "{% for x in %}{% endfor %}", "{% for x %}{% endfor %}", "{% nope %}", "{% if true %}", "{{ 'a }}", "{{ 1", "{# a", "{#", "{% raw %}", "{% raw %}a", "{{ a b }}", "{{ x|nope }}", "{{ x is nope }}", "{% break %}", "{% set 1 = 2 %}", "{% set none = 2 %}", "{{ (1 }}", "{{ [1) }}", "{{ f(a=1, 2) }}", "{% macro f(a=1, b) %}{% endmacro %}", "{% else %}", "{{ 1.}}", "{{ a. }}", "{{ ! }}", "{{ a ? b }}", "{% for x in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% set x.y = 1 %}", "{{ 'a' is string is string }}", "{% endfor %}", "{% generation %}", "{{ 012 }}"),
    *refused("not done", "not supported", "{% include 'a' %}", "{% extends 'a' %}", "{% import 'a' as b %}", "{% from 'a' import b %}", "{% block a %}{% endblock %}", "{% autoescape true %}{% endautoescape %}", "{{ lipsum() }}", "{{ cycler(1, 2) }}", "{{ [1, 2]|random }}", "{{ 'a'|batch(0)|list }}", "{{ self }}", "{{ 'a'|wordwrap }}", "{{ 'a'|urlize }}", "{{ messages|pprint }}", "{{ 1|filesizeformat }}", "{{ 'é'.isalpha() }}", "{{ 'ᾳ'.title() }}", "{{ 'a'.encode() }}", "{{ messages[0].get }}", "{{ messages|map(attribute='role') }}", "{{ ('<'|e) + 'a' }}", "{{ 5|round(-1) }}", "{{ 2 ** 200 }}", "{{ strftime_now('%s') }}", "{{ 'ff'|int(0, 16) }}", "{{ 1 is sameas 1 }}", "{{ namespace(a=1) }}"),
    *refused("running away", "more ", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{% set ns = namespace(x='a') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}", "{{ 'a' * 1000000000000 }}", "{{ [0] * 1000000000000 }}", "{% for a in range(99999) %}{{ 'a' * 100 }}{% endfor %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "{{ '%999999999999d' % 1 }}", "{{ '{:999999999999}'.format(1) }}", "{{ 'a'.ljust(999999999999) }}", "{{ 'a'|center(999999999999) }}", "{{ 'a\\nb'|indent(999999999999) }}", "{{ 'aaaa'.replace('', 'b' * 100000) * 100000 }}", "{{ range(99999)|batch(1)|map('batch', 1)|map('list')|map('string')|list|join|length * range(99999)|list|join|length }}{% for x in range(99999) %}{{ range(99999)|sum }}{% endfor %}", "{{ [1]|tojson(indent=999999999999) }}", "{% set l = ['x' * 1000000] * 100000 %}{{ l|tojson|length }}"),
]
