# docker build -t restore .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/pictures" restore image blurry.png
# docker run --rm -p 127.0.0.1:8000:8000 restore serve --host 0.0.0.0 --allow-host localhost
FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir "hatchling==1.33.0" && python -m hatchling build -t wheel -d /dist

FROM python:3.13-slim
# The CPU build: PyPI's torch for Linux brings gigabytes of CUDA.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==2.13.0"
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /dist /dist
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /dist/*.whl)[serve]" \
    && rm -r /dist /tmp/constraints.txt \
    && useradd --uid 1000 --create-home restore
USER 1000
# Whoever --user says: a place for what is fetched.
ENV HOME=/tmp HF_HOME=/tmp/huggingface
WORKDIR /pictures
EXPOSE 8000
ENTRYPOINT ["restore"]
CMD ["--help"]
